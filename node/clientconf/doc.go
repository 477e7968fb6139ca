// Package clientconf writes what a client needs to use a node: lines for .bazelrc, a buildstream.conf.
//
// Nouns: Endpoint (where a node answers), Bazel and BuildStream (the text for each).
//
// Promises: the text is valid as it stands, says where it belongs, and names nothing but the
// endpoint; it is pure text, made from its arguments.
//
// What it does not do: it writes no file and asks no node.
//
// Start reading at clientconf.go. The test that shows it whole is TestBazel.
package clientconf
