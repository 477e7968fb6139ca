// Package scenarios holds the claims about a mesh of real nodes, one text file each, and plays them in a lab.
//
// Nouns: those of testnet/scenario; World (a lab in which sentences are done). Adversaries without a seat in the mesh are
// testnet/stranger, those with one are testnet/rogue; what is built is testnet/sample.
//
//	go test ./testnet/scenarios                          play all
//	go test ./testnet/scenarios -run /partition -v       play one and print how long each wait took
//	go test ./testnet/scenarios -update                  rewrite the transcripts
//	go test ./testnet/scenarios -patience 3              waits may last three times as long, on a slow machine
//	go test ./testnet/scenarios -seed 7                  other losses on slow wires
//
// What is printed is made the same in every run: peer ids become the node's name, codes, times, sizes and
// process ids become a word, and blanks between columns shrink. `ana: status | mesh` prints only the lines in
// which "mesh" stands.
//
// Promises: a scenario has a lab of its own and leaves nothing; several are played at once. A file that does
// not parse, or whose transcript differs, fails.
//
// What it does not do: nothing in virtual time; testnet/simnet has hundreds of nodes and whole nights. It is no
// test of speed: the bounds in the files are what the mesh promises to people.
//
// Start reading at world_linux.go, World.Do; then the *.txt. The test that shows it whole is TestScenarios.
package scenarios
