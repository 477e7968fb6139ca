package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. It is never negative.
type Size int64

// unit is one suffix a size may carry.
type unit struct {
	name  string
	bytes float64
}

// units lists the suffixes, largest first within each family; the binary ones are what String writes.
func units() []unit {
	return []unit{
		{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
		{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3},
		{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1},
	}
}

// ParseSize reads "0", "4096", "512KiB", "1.5 GiB", "10GB" (10^9) or "10G" (2^30).
// Without a suffix the unit is bytes. A fraction of a byte is cut off.
func ParseSize(s string) (Size, error) {
	number, scale := strings.TrimSpace(s), 1.0
	for _, u := range units() {
		if rest, found := strings.CutSuffix(number, u.name); found {
			number, scale = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	if strings.Trim(number, "0123456789.") != "" {
		return 0, fmt.Errorf("%q is not a size like 512MiB or 10GiB", s)
	}
	// Whole numbers do not pass through a float, which would round those above 2^53.
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && float64(n)*scale < math.MaxInt64 {
		return Size(n * int64(scale)), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size like 512MiB or 10GiB", s)
	}
	if f*scale >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large a size", s)
	}
	return Size(f * scale), nil
}

// String writes the largest binary unit that divides the size without rest: ParseSize gives it back.
func (s Size) String() string {
	if s == 0 {
		return "0"
	}
	for _, u := range units()[:4] {
		if n := int64(u.bytes); int64(s)%n == 0 {
			return strconv.FormatInt(int64(s)/n, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}
