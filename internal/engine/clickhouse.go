package engine

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// ClickHouse says how to connect. It prints without its password.
type ClickHouse struct {
	Addresses   []string // host:port of the native protocol
	HTTPAddress string   // host:port of the HTTP interface; empty when not known
	Database    string
	User        string
	Password    string
	Cluster     string // empty: one server
}

// String leaves out the password.
func (c ClickHouse) String() string {
	return fmt.Sprintf("clickhouse %s@%s/%s cluster=%q", c.User, strings.Join(c.Addresses, ","), c.Database, c.Cluster)
}

// GoString leaves out the password.
func (c ClickHouse) GoString() string { return c.String() }

// LogValue leaves out the password.
func (c ClickHouse) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("addresses", c.Addresses), slog.String("user", c.User),
		slog.String("database", c.Database), slog.String("cluster", c.Cluster))
}

// MarshalJSON leaves out the password.
func (c ClickHouse) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", c.String()), nil }

func external(config ClickHouseConfig) (ClickHouse, error) {
	c := config.connection()
	c.Addresses = config.Addresses
	if config.PasswordFile != "" {
		password, err := readPassword(config.PasswordFile)
		if err != nil {
			return ClickHouse{}, fmt.Errorf("connect to clickhouse: %w", err)
		}
		c.Password = password
	}
	return c, nil
}

func (c ClickHouseConfig) connection() ClickHouse {
	database, user := c.Database, c.User
	if database == "" {
		database = DefaultDatabase
	}
	if user == "" {
		user = DefaultUser
	}
	return ClickHouse{Database: database, User: user, Cluster: c.Cluster}
}

func readPassword(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read password file: %w", err)
	}
	password := strings.TrimRight(string(raw), "\r\n")
	if password == "" {
		return "", fmt.Errorf("read password file %s: it is empty", path)
	}
	return password, nil
}
