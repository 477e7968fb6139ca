package action

import (
	"fmt"
	"path"
	"slices"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// setCommand takes over what the Command message alone says.
func (a *Action) setCommand(m *repb.Command, limits Limits) error {
	if err := a.setArguments(m.Arguments); err != nil {
		return err
	}
	if err := a.setEnv(m.EnvironmentVariables); err != nil {
		return err
	}
	if err := a.setWorkingDirectory(m.WorkingDirectory); err != nil {
		return err
	}
	if err := a.setOutputs(m, limits); err != nil {
		return err
	}
	for i, name := range m.OutputNodeProperties {
		if name != "mtime" && name != "unix_mode" {
			return &InvalidError{Field: fmt.Sprintf("output_node_properties[%d]", i), Reason: fmt.Sprintf("%q is not known", name)}
		}
	}
	a.OutputNodeProperties = slices.Clone(m.OutputNodeProperties)
	slices.Sort(a.OutputNodeProperties)
	a.OutputNodeProperties = slices.Compact(a.OutputNodeProperties)
	a.Format = m.OutputDirectoryFormat
	if _, known := repb.Command_OutputDirectoryFormat_name[int32(a.Format)]; !known {
		a.Format = repb.Command_TREE_ONLY // as message Command says of unknown values
	}
	return nil
}

func (a *Action) setArguments(arguments []string) error {
	if len(arguments) == 0 {
		return &InvalidError{Field: "arguments", Reason: "is empty"}
	}
	if arguments[0] == "" {
		return &InvalidError{Field: "arguments[0]", Reason: "is empty"}
	}
	for i, argument := range arguments {
		if strings.ContainsRune(argument, 0) {
			return &InvalidError{Field: fmt.Sprintf("arguments[%d]", i), Reason: "contains a NUL byte"}
		}
	}
	a.Arguments = arguments
	return nil
}

// setEnv tolerates an unsorted list, which real clients send, and refuses a name given twice.
func (a *Action) setEnv(variables []*repb.Command_EnvironmentVariable) error {
	seen := make(map[string]bool, len(variables))
	a.Env = make([]string, 0, len(variables))
	for i, v := range variables {
		field, name, value := fmt.Sprintf("environment_variables[%d]", i), v.GetName(), v.GetValue()
		switch {
		case name == "":
			return &InvalidError{Field: field, Reason: "has no name"}
		case strings.ContainsAny(name, "=\x00"):
			return &InvalidError{Field: field, Reason: fmt.Sprintf("name %q contains = or NUL", name)}
		case strings.ContainsRune(value, 0):
			return &InvalidError{Field: field, Reason: fmt.Sprintf("value of %s contains a NUL byte", name)}
		case seen[name]:
			return &InvalidError{Field: field, Reason: fmt.Sprintf("%s is given twice", name)}
		}
		seen[name] = true
		a.Env = append(a.Env, name+"="+value)
	}
	return nil
}

func (a *Action) setWorkingDirectory(dir string) error {
	clean, reason := inside("", dir)
	if reason != "" {
		return &InvalidError{Field: "working_directory", Reason: reason}
	}
	if clean == "." {
		clean = ""
	}
	a.WorkingDirectory = clean
	return nil
}

// setOutputs takes output_paths, or, only where that list is empty, the two lists it superseded.
func (a *Action) setOutputs(m *repb.Command, limits Limits) error {
	//lint:ignore SA1019 clients of API 2.0 send these lists
	files, directories := m.OutputFiles, m.OutputDirectories
	if n := len(m.OutputPaths) + len(files) + len(directories); n > limits.MaxOutputs {
		return &InvalidError{Field: "output_paths", Reason: fmt.Sprintf("%d outputs, at most %d are taken", n, limits.MaxOutputs)}
	}
	seen := make(map[string]bool)
	if len(m.OutputPaths) > 0 {
		return a.addOutputs(seen, "output_paths", m.OutputPaths)
	}
	a.Legacy = len(files)+len(directories) > 0
	if err := a.addOutputs(seen, "output_files", files); err != nil {
		return err
	}
	if field, reason := fileAboveFile(a.Outputs); field != "" {
		return &InvalidError{Field: field, Reason: reason}
	}
	return a.addOutputs(seen, "output_directories", directories)
}

// addOutputs checks and appends one list. seen holds the clean path of every output so far.
func (a *Action) addOutputs(seen map[string]bool, list string, paths []string) error {
	for i, p := range paths {
		field := fmt.Sprintf("%s[%d]", list, i)
		if p == "" && list == "output_files" {
			return &InvalidError{Field: field, Reason: "is empty"}
		}
		if strings.HasSuffix(p, "/") {
			return &InvalidError{Field: field, Reason: fmt.Sprintf("%q ends in a slash", p)}
		}
		clean, reason := inside(a.WorkingDirectory, p)
		if reason != "" {
			return &InvalidError{Field: field, Reason: reason}
		}
		if seen[clean] {
			return &InvalidError{Field: field, Reason: fmt.Sprintf("%q is given twice", p)}
		}
		seen[clean] = true
		a.Outputs = append(a.Outputs, Output{Path: p, Clean: clean, Directory: list == "output_directories"})
	}
	return nil
}

// fileAboveFile finds an output file that would be the parent directory of another one; message Command
// forbids it for output_files, and for no other list.
func fileAboveFile(outputs []Output) (field, reason string) {
	files := make(map[string]bool, len(outputs))
	for _, o := range outputs {
		files[o.Clean] = true
	}
	for i, o := range outputs {
		for dir := path.Dir(o.Clean); dir != "."; dir = path.Dir(dir) {
			if files[dir] {
				return fmt.Sprintf("output_files[%d]", i), fmt.Sprintf("%q lies below another output file", o.Path)
			}
		}
	}
	return "", ""
}

// inside joins p to dir, both relative to the input root, and says why when p is absolute, contains a
// NUL byte or leaves the root. A .. that stays inside is legal: BuildStream sends it.
func inside(dir, p string) (clean, reason string) {
	switch {
	case strings.HasPrefix(p, "/"):
		return "", fmt.Sprintf("%q is absolute", p)
	case strings.ContainsRune(p, 0):
		return "", fmt.Sprintf("%q contains a NUL byte", p)
	}
	clean = path.Join(dir, p)
	if clean == "" {
		clean = "."
	}
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Sprintf("%q leaves the input root", p)
	}
	return clean, ""
}
