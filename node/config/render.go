package config

import (
	"fmt"
	"strings"
)

// TOML writes every key with its meaning, value in c commented out where it is the default: a file to
// start from.
func TOML(c *Config) string {
	var out strings.Builder
	section := ""
	for _, k := range Keys() {
		head, name, _ := strings.Cut(k.Name, ".")
		if head != section {
			if section != "" {
				out.WriteByte('\n')
			}
			fmt.Fprintf(&out, "[%s]\n", head)
			section = head
		}
		value, mark := k.Default, "# "
		if c.Origin(k.Name).Kind != Default {
			value, mark = k.Value(c), ""
		}
		if k.quoted() {
			value = fmt.Sprintf("%q", value)
		}
		fmt.Fprintf(&out, "# %s\n%s%s = %s\n", k.Doc, mark, name, value)
	}
	return out.String()
}

// Markdown is the table of all keys that stands in the README.
func Markdown() string {
	var out strings.Builder
	out.WriteString("| key | default | meaning |\n|---|---|---|\n")
	for _, k := range Keys() {
		value := ""
		if k.Default != "" {
			value = "`" + k.Default + "`"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", k.Name, value, k.Doc)
	}
	return out.String()
}
