// Package botspb is the Remote Workers API, version v1test2, as far as a Bots service needs it.
//
// The package of that API in google.golang.org/genproto was removed in 2022, so bots.proto here defines
// the messages anew, with the names and numbers they have on the wire. google.rpc.Status is defined with
// them, since the generator knows no other place for it. bots.pb.go and bots_grpc.pb.go are generated
// by make proto.
//
// It holds no logic. Start reading at bots.proto. The test that shows it in use is TestWorkerKilled in
// testnet/clients.
package botspb
