package config

import "time"

// Lend says what this machine's owner wants of lending it to others' actions. Names and defaults of the wishes are those of
// node/power.
type Lend struct {
	Enabled bool // run actions of other members at all
	Battery string
	User    string
	Heat    string
	Metered string
	CPU     int    // percent of the processors
	Reserve Size   // memory left to the owner
	Hours   string // 18:00-08:00; empty: always
	Grace   time.Duration
}

func lendKeys() []Key {
	wishes := []string{"lend", "throttle", "close"}
	return []Key{
		{Name: "lend.enabled", Default: "true", Doc: "run actions of other members of the mesh; false: only this machine's own",
			at: func(c *Config) any { return &c.Lend.Enabled }},
		{Name: "lend.battery", Default: "close", Choices: wishes, Doc: "while on battery: lend, throttle (half the slots, of one none), close",
			at: func(c *Config) any { return &c.Lend.Battery }},
		{Name: "lend.user", Default: "throttle", Choices: wishes,
			Doc: "while somebody uses the machine: lend, throttle, close (what runs for others stands still, then leaves)",
			at:  func(c *Config) any { return &c.Lend.User }},
		{Name: "lend.heat", Default: "throttle", Choices: wishes, Doc: "while the machine is too hot: lend, throttle, close",
			at: func(c *Config) any { return &c.Lend.Heat }},
		{Name: "lend.metered", Default: "close", Choices: wishes, Doc: "while the network is paid by the byte: lend, throttle, close",
			at: func(c *Config) any { return &c.Lend.Metered }},
		{Name: "lend.cpu", Default: "60", Max: 100,
			Doc: "percent of the processors that other programs may use before half is lent; 0: never mind",
			at:  func(c *Config) any { return &c.Lend.CPU }},
		{Name: "lend.reserve", Default: "1GiB", Doc: "memory left to this machine's owner: an action of others needs this and what it asks for free; 0: never mind",
			at: func(c *Config) any { return &c.Lend.Reserve }},
		{Name: "lend.hours", Doc: "when to lend, such as 18:00-08:00, in local time; empty: always",
			at: func(c *Config) any { return &c.Lend.Hours }},
		{Name: "lend.grace", Default: "30s", Max: int64(time.Hour),
			Doc: "how long what runs for others may go on when the machine is needed; 0 to 1h",
			at:  func(c *Config) any { return &c.Lend.Grace }},
	}
}
