package bridge

import (
	"fmt"
	"path"
	"strings"
)

// Label gives a target's label in one form, //package:name or @repository//package:name, of all those
// that Bazel and people write.
func Label(s string) (string, error) {
	repository, rest := "", strings.TrimLeft(s, "@")
	if before, after, found := strings.Cut(rest, "//"); found {
		repository, rest = before, after
	}
	rest = strings.TrimLeft(rest, "/")
	pkg, name, found := strings.Cut(rest, ":")
	if !found {
		name = path.Base(rest)
	}
	if rest == "" || name == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("%.200q is no label: want //PACKAGE:NAME", s)
	}
	if repository != "" {
		repository = "@" + repository
	}
	return repository + "//" + pkg + ":" + name, nil
}
