// Package logstream makes growing sequences of bytes readable while they grow: logs that a client
// writes, and files that a running action writes.
//
// Nouns: Streams (all of them), the public name that everybody may read, the secret write name that
// only who created the stream may write to, Service (CreateLogStream over gRPC).
//
// A stream is unfinished, then final, and then forgotten:
//   - Create makes one that is written with Write, at the committed offset only, until a write finishes it.
//   - Follow makes one of a file that somebody else writes. The file is looked at only while somebody reads.
//   - Read sends what is there and waits for more until the stream is final.
//   - A final stream stays readable for Options.Retention, within Options.MaxStreams and RetainedBytes;
//     a reader that has begun reads to the end in any case.
//
// Promises: content lies in files, so that memory does not grow with it; a followed file may be removed
// while it is followed. Committed bytes never change. Names hold 128 bits of randomness, write names
// another 128. Everything is safe for concurrent use.
// Errors wrap ErrNotFound, ErrName (malformed, or the wrong one of the two names), ErrOffset, ErrFinal,
// ErrFull.
//
// What it does not do: streams do not survive the process, and the ByteStream protocol itself (messages,
// resource names on the first message only) is node/reapi's.
//
// Source: build.bazel.remote.logstream.v1.
//
// Start reading at streams.go. The test that shows it whole is TestWriteAndTail.
package logstream
