package distance

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// Of the last few measurements the best one counts, what is too little or too old does not.
func TestTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable()
		want := func(what, site string, rtt time.Duration, bandwidth float64) {
			t.Helper()
			d := table.To(site)
			if d.RTT.Round(time.Microsecond) != rtt || math.Abs(d.Bandwidth-bandwidth) > 1 {
				t.Fatalf("%s: %+v, want %v and %v", what, d, rtt, bandwidth)
			}
		}
		answered := func(all ...time.Duration) {
			for _, took := range all {
				table.Answered("b", took)
			}
		}
		brought := func(bytes int64, all ...time.Duration) {
			for _, took := range all {
				table.Brought("b", bytes, took)
			}
		}
		want("nothing measured", "b", 0, 0)
		answered(200*time.Millisecond, 40*time.Millisecond)
		want("two answers", "b", 0, 0)
		answered(60 * time.Millisecond)
		want("three answers", "b", 40*time.Millisecond, 0)
		brought(1<<20, 540*time.Millisecond, 1040*time.Millisecond, 2040*time.Millisecond)
		want("three transfers", "b", 40*time.Millisecond, 2<<20)
		brought(minBytes-1, time.Microsecond, time.Microsecond, time.Microsecond)
		brought(1<<20, 40*time.Millisecond)
		want("transfers that tell nothing", "b", 40*time.Millisecond, 2<<20)
		for range Samples {
			answered(90 * time.Millisecond)
		}
		want("a longer way now", "b", 90*time.Millisecond, 2<<20)
		want("another site", "c", 0, 0)
		time.Sleep(FreshFor + time.Second)
		want("everything is old", "b", 0, 0)
	})
}

// However many sites are named, so many are kept; those not measured any more make room.
func TestTableIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable()
		name := func(i int) string { return fmt.Sprint("site ", i) }
		measured := func(i int) bool {
			for range Enough {
				table.Answered(name(i), time.Second)
				table.Brought(name(i), minBytes, time.Second)
			}
			return table.To(name(i)).RTT == time.Second
		}
		for i := range MaxSites + 10 {
			if kept := measured(i); kept != (i < MaxSites) {
				t.Fatalf("site %d is kept: %v", i, kept)
			}
		}
		time.Sleep(FreshFor + time.Second)
		if !measured(MaxSites) || len(table.sites) != 1 {
			t.Errorf("%d sites are kept when all but one are old", len(table.sites))
		}
	})
}
