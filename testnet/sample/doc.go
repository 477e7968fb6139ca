// Package sample has small actions whose outputs everybody can work out, and a client that builds them.
//
// Nouns: Sample (an action: a shell repeats a name until a file is full, and may sleep or fill memory before), Client (of one
// endpoint; for samples, and for any action that is stored), Built (what became of a sample).
//
//	client, err := sample.Dial("unix:" + socket)
//	built, err := client.Build(ctx, sample.Sample{Name: "one", Size: 6})
//	built.Worker, built.Right // who ran it; whether the bytes are those of Sample.Content
//
// Promises: equal samples are equal actions, on every machine and in every program: who knows a sample's name knows the
// digests of its action and of its output. Every byte of an output is read back through the endpoint and compared.
//
// What it does not do: it starts no node and asserts nothing.
//
// Start reading at sample.go, Sample. The test that shows it whole is TestBuild; it is seen at work in testnet/scenarios.
package sample
