package human

import (
	"fmt"
	"strconv"
	"time"
)

// Bytes writes a size in the largest binary unit it fills: "0 B", "1.5 KiB", "3.0 GiB".
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", max(n, 0))
	}
	size, units := float64(n)/1024, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for size >= 1023.95 { // what would be written as 1024.0
		size /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %s", size, units[i])
}

// Age writes a duration in its two largest units of days, hours, minutes and seconds.
func Age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// State writes a state with its reason, which may be missing or say no more than the state.
func State(state, reason string) string {
	if reason == "" || reason == state {
		return state
	}
	return state + ": " + reason
}

// Count writes a number with a comma between each three digits.
func Count(n int64) string {
	digits := strconv.FormatInt(max(n, 0), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Percent writes part of whole as a share; nothing of nothing is "0 %".
func Percent(part, whole int64) string {
	if whole <= 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(max(part, 0))/float64(whole))
}

// Cores writes a number of cores without a zero fraction: "2", "1.5".
func Cores(c float64) string { return strconv.FormatFloat(max(c, 0), 'f', -1, 64) }
