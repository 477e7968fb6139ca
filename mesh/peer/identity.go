package peer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// File is the name of the key file in the node's state directory: PKCS #8 in PEM.
const File = "identity.pem"

// Identity is the key pair of this node. It is immutable and safe for concurrent use.
type Identity struct {
	private ed25519.PrivateKey
}

// Load reads the identity from the state directory, or makes one when there is none yet. The
// directory must exist. A key file that group or others can read is refused.
func Load(dir string) (*Identity, error) {
	path := filepath.Join(dir, File)
	id, err := read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	if err := create(path); err != nil {
		return nil, fmt.Errorf("make identity %s: %w", path, err)
	}
	return read(path)
}

// LoadFile reads a key file, which group and others must not be able to read. Errors wrap fs.ErrNotExist
// when there is none.
func LoadFile(path string) (*Identity, error) { return read(path) }

// Generate makes an identity that is in memory only.
func Generate() (*Identity, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	return &Identity{private: private}, nil
}

// FromSeed is the identity of a seed (RFC 8032).
func FromSeed(seed [ed25519.SeedSize]byte) *Identity {
	return &Identity{private: ed25519.NewKeyFromSeed(seed[:])}
}

// Save writes the key to a new file that only its owner can read. Errors wrap fs.ErrExist when there is
// a file already; it stays as it is.
func (i *Identity) Save(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("write key %s: %w", path, fs.ErrExist)
	}
	if err := save(i.private, path); err != nil {
		return fmt.Errorf("write key %s: %w", path, err)
	}
	return nil
}

// Private is the private half, for a TLS stack that must sign by itself.
func (i *Identity) Private() ed25519.PrivateKey { return i.private }

// ID is the public half.
func (i *Identity) ID() ID { return ID(i.private.Public().(ed25519.PublicKey)) }

// Sign signs message; ID.Verify checks it.
func (i *Identity) Sign(message []byte) []byte { return ed25519.Sign(i.private, message) }

// read loads an existing key file.
func read(path string) (*Identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("identity %s is open to others (mode %#o); mend it with: chmod 600 %s", path, mode, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("identity %s holds no PEM block", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", path, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("identity %s is not an Ed25519 key", path)
	}
	return &Identity{private: private}, nil
}

// create makes a new key file. When another process was first, its file stays.
func create(path string) error {
	id, err := Generate()
	if err != nil {
		return err
	}
	if err := save(id.private, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// save writes a key file in full before it gets its name.
func save(private ed25519.PrivateKey, path string) error {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	err = pem.Encode(temp, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, never replaces a key that is already there.
	err = os.Link(temp.Name(), path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	return copyNew(temp.Name(), path) // a file system without links, as on a memory stick
}

// copyNew copies a file to a path nothing has yet.
func copyNew(from, path string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = to.Write(data)
	if err == nil {
		err = to.Sync()
	}
	return errors.Join(err, to.Close())
}
