// Package proto is the room of buildmesh's own protocol definitions and the code generated from them.
//
//	control/v1  what the command line asks the running node, over a unix socket only its owner opens
//	lease/v1    what peers ask each other to run actions
//
//	remoteworkers/v1test2  the Remote Workers API, by which a BuildGrid bot lends its machine to a node
//
// The Remote Execution API itself is not here: it comes from github.com/bazelbuild/remote-apis.
// What the room does not do: no logic stands in it. `make proto` makes the generated files anew;
// the versions of the generators are pinned in the Makefile.
//
// Start reading at control/v1/control.proto.
package proto
