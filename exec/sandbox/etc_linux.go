package sandbox

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// etcNames are what compilers and interpreters read below /etc. Everything else there is the owner's: tokens of package
// managers, keys, the names of users.
var etcNames = []string{
	"alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "os-release", "debian_version", "lsb-release",
	"ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust/extracted", "pki/java", "crypto-policies",
	"java*", "perl", "python2*", "python3*", "fonts", "mime.types", "magic", "magic.mime", "xml", "sgml", "texmf",
	"groff", "terminfo", "protocols", "services", "rpc", "locale.alias", "ghostscript", "gcrypt", "glvnd", "OpenCL",
}

// etcFiles are made up, and so equal on all machines.
var etcFiles = map[string]string{
	"passwd":        "root:x:0:0:root:/home:/bin/sh\nbuild:x:1000:1000:build:/home:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
	"group":         "root:x:0:\nbuild:x:1000:\nnogroup:x:65534:\n",
	"hosts":         "127.0.0.1 localhost buildmesh\n::1 localhost\n",
	"hostname":      "buildmesh\n",
	"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nprotocols: files\nservices: files\n",
	"resolv.conf":   "",
}

// etcBytes bounds the copy; what is shown is some 2 MiB.
const etcBytes = 64 << 20

// buildEtc makes dir a public copy of the machine's /etc (source), as an action sees it. What was there is replaced.
func buildEtc(source, dir string) error {
	fresh := dir + ".new"
	for _, d := range []string{fresh, dir} {
		if err := os.RemoveAll(d); err != nil {
			return fmt.Errorf("build etc: %w", err)
		}
	}
	c := &copier{source: source, target: fresh, left: etcBytes}
	for _, pattern := range etcNames {
		names, _ := filepath.Glob(filepath.Join(source, pattern)) // the only error is a bad pattern
		for _, name := range names {
			if err := c.copy(name); err != nil {
				return fmt.Errorf("build etc: %w", err)
			}
		}
	}
	if err := os.MkdirAll(fresh, 0o755); err != nil {
		return fmt.Errorf("build etc: %w", err)
	}
	for name, content := range etcFiles {
		if err := os.WriteFile(filepath.Join(fresh, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("build etc: %w", err)
		}
	}
	if err := os.Rename(fresh, dir); err != nil {
		return fmt.Errorf("build etc: %w", err)
	}
	return nil
}

// copier copies trees without following links, leaving out what not everybody may read.
type copier struct {
	source, target string
	left           int64 // bytes
}

func (c *copier) copy(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // unreadable for the node: not for actions either
		}
		rel, err := filepath.Rel(c.source, path)
		if err != nil {
			return err
		}
		target := filepath.Join(c.target, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		switch {
		case entry.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return nil
			}
			return os.Symlink(link, target)
		case entry.IsDir():
			if info.Mode()&0o005 != 0o005 {
				return fs.SkipDir
			}
			return os.MkdirAll(target, 0o755)
		case entry.Type().IsRegular() && info.Mode()&0o004 != 0:
			return c.file(path, target, info.Mode().Perm()&0o555|0o200)
		}
		return nil
	})
}

func (c *copier) file(path, target string, mode os.FileMode) error {
	in, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(in, c.left+1))
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if c.left -= n; err == nil && c.left < 0 {
		err = fmt.Errorf("more than %d bytes", etcBytes)
	}
	return err
}
