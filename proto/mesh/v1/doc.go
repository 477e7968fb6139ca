// Package meshv1 is what members of a mesh say to each other about the mesh itself. It is generated
// from the .proto files beside it by `make proto`.
//
// It holds no logic. Start reading at reach.proto. The test that shows it in use is TestDialBack in
// mesh/transport.
package meshv1
