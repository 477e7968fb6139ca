package stage

import (
	"fmt"
	"testing"
)

func benchNodes(files int, source string) map[string]node {
	nodes := map[string]node{"main.c": {content: source}}
	for i := range files - 1 {
		nodes[fmt.Sprintf("lib/d%d/f%d.h", i/100, i)] = node{content: fmt.Sprintf("%04000d", i)}
	}
	return nodes
}

func BenchmarkStage(b *testing.B) {
	for _, files := range []int{1000, 10000} {
		blobs := newFakeBlobs(b)
		first, second := blobs.tree(b, benchNodes(files, "one")), blobs.tree(b, benchNodes(files, "two"))
		b.Run(fmt.Sprintf("first/%d", files), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				c := open(b, b.TempDir(), blobs, Options{})
				b.StartTimer()
				stageTree(b, c, first).Release()
				b.StopTimer()
				if err := c.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*files), "us/file")
		})
		c := open(b, b.TempDir(), blobs, Options{})
		stageTree(b, c, first).Release()
		b.Run(fmt.Sprintf("again/%d", files), func(b *testing.B) {
			for b.Loop() {
				stageTree(b, c, first).Release()
			}
		})
		b.Run(fmt.Sprintf("similar/%d", files), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				fresh := blobs.tree(b, benchNodes(files, fmt.Sprint("two", b.N, b.Elapsed())))
				b.StartTimer()
				stageTree(b, c, fresh).Release()
			}
		})
		_ = second
	}
}
