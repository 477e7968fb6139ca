package platform

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxCores and maxBytes bound what a request may say, so that sums of requests never overflow.
const (
	maxCores = 1 << 20
	maxBytes = 1 << 56
)

// normalOS folds the case and knows macos by its other name.
func normalOS(value string) string {
	value = strings.ToLower(value)
	if value == "darwin" {
		return "macos"
	}
	return value
}

// normalISA folds the case and replaces the names of other lexicons by those of platform.md.
func normalISA(value string) string {
	value = strings.ToLower(value)
	switch value {
	case "amd64", "x86_64", "x86-64-v1":
		return "x86-64"
	case "arm64", "aarch64":
		return "arm-a64"
	case "x86_64_v2", "x86_64-v2", "x86_64_v3", "x86_64-v3", "x86_64_v4", "x86_64-v4":
		return "x86-64-" + value[len("x86_64_"):]
	default:
		return value
	}
}

// parseCores reads "2", "0.5" or, in thousandths, "500m".
func parseCores(name, value string) (float64, error) {
	number, scale := value, 1.0
	if milli, found := strings.CutSuffix(value, "m"); found {
		number, scale = milli, 1.0/1000
	}
	cores, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(cores) || cores < 0 || cores*scale > maxCores {
		return 0, &InvalidError{Property: name, Value: value, Reason: "is not a number of cores"}
	}
	return cores * scale, nil
}

// byteUnits are the suffixes of a size, longest first: binary without B and with iB, decimal with B.
var byteUnits = []struct {
	suffix string
	factor float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40},
	{"b", 1},
}

// parseBytes reads "1073741824", "1G", "1GiB", "1.5GB"; case does not matter.
func parseBytes(name, value string) (int64, error) {
	number, factor := strings.ToLower(value), 1.0
	for _, unit := range byteUnits {
		if rest, found := strings.CutSuffix(number, unit.suffix); found {
			number, factor = strings.TrimSpace(rest), unit.factor
			break
		}
	}
	bytes, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(bytes) || bytes < 0 || bytes*factor > maxBytes {
		return 0, &InvalidError{Property: name, Value: value, Reason: "is not a number of bytes"}
	}
	return int64(math.Ceil(bytes * factor)), nil
}

// parseNetwork reads the values of network (on, off) and of dockerNetwork (standard, off).
func parseNetwork(name, value string) (bool, error) {
	switch strings.ToLower(value) {
	case "on", "true", "standard", "external", "bridge":
		return true, nil
	case "off", "false", "none", "":
		return false, nil
	default:
		return false, &InvalidError{Property: name, Value: value, Reason: "is neither on nor off"}
	}
}

// setID fills a numeric user or group; the same one again is tolerated.
func setID(field **uint32, name, value string) error {
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil || id == math.MaxUint32 { // the highest means "no change" to the kernel
		return &InvalidError{Property: name, Value: value, Reason: "is not a number from 0 to 4294967294"}
	}
	n := uint32(id)
	if *field != nil && **field != n {
		return &InvalidError{Property: name, Value: value, Reason: fmt.Sprintf("was already given as %d", **field)}
	}
	*field = &n
	return nil
}
