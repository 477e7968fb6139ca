// Package contentv1 is what members ask each other about content: summaries of action results, signed
// receipts, and who provides which blob.
//
// Noun: Content, the service a node offers its members on the control connection. Fields are only ever
// added. The generated files are made by `make proto`.
//
// It holds no logic. Start reading at content.proto. The test that shows it in use is TestTwoNodes in
// dht/share.
package contentv1
