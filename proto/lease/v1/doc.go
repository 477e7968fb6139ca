// Package leasev1 is what peers say to each other to run each other's actions: service Lease.
//
// Nouns: Claim (a lease, the attempt and the epoch it was given for), Ticket and Offer (late binding), Progress (a
// heartbeat), Result. Fields are only ever added. lease.pb.go and lease_grpc.pb.go are generated from lease.proto: make proto.
//
// It holds no logic. Start reading at lease.proto. The test that shows it in use is TestLifeOfALease in exec/lease.
package leasev1
