// Package config is what one node was told: listening addresses, directories, limits.
//
// Nouns: Config (the settled values), Key (one setting: name, default, bounds, meaning), Origin
// (where a value came from), Size (bytes, written as "10GiB").
//
// Every key stands once, in the table of keys.go. From that table come the environment names
// (store.max_size is BUILDMESH_STORE_MAX_SIZE), the checks of bounds, `buildmesh config show`,
// the commented file `config show --toml` prints, and the table in the README.
//
// A value is settled by the first of: flag (--set key=value and the flags that abbreviate it),
// environment, configuration file, default. Everything has a default: a node needs no file.
//
// Promises:
//   - An unknown key or environment variable with our prefix is an error that names the nearest
//     known one; an error from a file says file:line.
//   - A Config that Load returned is within the bounds of every key, and its directories are
//     absolute paths.
//   - Load reads; it creates nothing. A Config is a value and safe to copy.
//
// What it does not do: it does not watch the file, and it does not look whether a directory can be
// written or an address is free; node/doctor does.
//
// Start reading at keys.go, keys; then load.go, Load. The test that shows it whole is TestPrecedence.
package config
