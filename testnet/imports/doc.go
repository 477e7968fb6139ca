// Package imports holds the rules about the shape of the source tree, as tests.
//
// Nouns: room (a top-level folder), rule (which rooms a room may import).
//
// The rules: the rooms are exactly those the README names; imports run cmd -> node -> exec, dht,
// mesh -> proto and never back; exec takes only values from dht and mesh; testnet is imported by
// nobody; every package says in its doc.go what it is, within 60 lines; no package is a drawer for
// odds and ends; files end at 600 lines, functions at 80, interfaces at five methods.
//
// What it does not do: it judges no generated code (files that say so by Go's convention).
//
// Start reading at imports_test.go. The test that shows it whole is TestDirection.
package imports
