// Package usagev1 is the message that carries an action's resource usage beside its result.
//
// Noun: ResourceUsage, packed into ExecutedActionMetadata.auxiliary_metadata. Fields are only ever
// added. usage.pb.go is generated from usage.proto by protoc with protoc-gen-go:
//
//	protoc --go_out=. --go_opt=paths=source_relative proto/usage/v1/usage.proto
//
// It holds no logic. Start reading at usage.proto. The test that shows it in use is TestExecute in
// exec/run.
package usagev1
