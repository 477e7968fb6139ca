package main

import "github.com/buildmesh/buildmesh/exec/sandbox/initproc"

func main() { initproc.Run() }
