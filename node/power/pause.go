package power

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// PauseFile is the name of the file in the state directory that keeps a pause across restarts.
const PauseFile = "pause.json"

// Pause is the owner's word that nothing is lent for a time. The zero value is none.
type Pause struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"` // zero: until Resume
	Now   bool      `json:"now"`   // guests leave at once instead of finishing
}

// IsZero reports whether there is no pause.
func (p Pause) IsZero() bool { return p.From.IsZero() }

// holds reports whether the pause is on. One whose beginning lies in the future was written by a clock that has been set
// back since: it cannot be trusted to end, and does not hold.
func (p Pause) holds(now time.Time) bool {
	return !p.IsZero() && !now.Before(p.From) && (p.Until.IsZero() || now.Before(p.Until))
}

// ParseUntil reads how long to pause: "" (until resumed), a duration such as "2h", or "until 18:00" (or "18:00"), the next
// time the clock shows that.
func ParseUntil(text string, now time.Time) (time.Time, error) {
	text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "until"))
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		if d <= 0 || d > 366*24*time.Hour {
			return time.Time{}, fmt.Errorf("pause for %s: want more than nothing and at most a year", text)
		}
		return now.Add(d), nil
	}
	clock, err := parseClock(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("pause %q: want a duration such as 2h, or a time such as 18:00", text)
	}
	at := time.Date(now.Year(), now.Month(), now.Day(), int(clock.Hours()), int(clock.Minutes())%60, 0, 0, now.Location())
	if !at.After(now) {
		at = at.AddDate(0, 0, 1)
	}
	return at, nil
}

// loadPause reads the kept pause; none, where there is none or the file is damaged.
func loadPause(dir string) (Pause, error) {
	data, err := os.ReadFile(filepath.Join(dir, PauseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Pause{}, nil
	}
	if err != nil {
		return Pause{}, fmt.Errorf("read pause: %w", err)
	}
	var p Pause
	if err := json.Unmarshal(data, &p); err != nil {
		return Pause{}, nil // a pause is a wish, not data: a damaged one is none
	}
	return p, nil
}

// savePause keeps p, or forgets the kept one if p is none. A crash leaves the old or the new one.
func savePause(dir string, p Pause) error {
	path := filepath.Join(dir, PauseFile)
	if p.IsZero() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget pause: %w", err)
		}
		return nil
	}
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("keep pause: %w", err)
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return fmt.Errorf("keep pause: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("keep pause: %w", err)
	}
	return nil
}
