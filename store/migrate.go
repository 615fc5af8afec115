package store

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"regexp"
	"strings"
	"testing/fstest"
	"text/template"

	"github.com/pressly/goose/v3"
)

//go:embed schema/*.sql
var embeddedSchema embed.FS

// Schema returns the migrations of the database of this package.
func Schema() fs.FS {
	sub, err := fs.Sub(embeddedSchema, "schema")
	if err != nil {
		panic("store: schema directory is not embedded: " + err.Error())
	}
	return sub
}

// MigrateOptions say for which kind of ClickHouse the statements are made.
type MigrateOptions struct {
	Database string // created when missing
	Cluster  string // runs every statement ON CLUSTER; empty = on this server alone

	// Replicated makes every table a replicated one. ReplicaPath is its path in
	// Keeper, in which {table} is filled in here and the server fills in its own
	// macros; empty means /clickhouse/tables/{shard}/{database}/{table}.
	Replicated  bool
	ReplicaPath string

	StoragePolicy string // of the tables; empty = the server's default

	// Unsynced makes tables whose inserts are acknowledged before they are on
	// disk: death of the server loses nothing then either, loss of power may. It
	// is for measurements, and for replicas that do not lose power together.
	Unsynced bool
}

// Names stand in statements unquoted and unescaped.
var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

var replicaPath = regexp.MustCompile(`^[A-Za-z0-9_/{}.-]{1,200}$`)

func (o *MigrateOptions) validate() error {
	for _, f := range []struct {
		field, value string
		optional     bool
	}{{"database", o.Database, false}, {"cluster", o.Cluster, true}, {"storage_policy", o.StoragePolicy, true}} {
		if !plainName.MatchString(f.value) && (!f.optional || f.value != "") {
			return fmt.Errorf("field %s: want a letter or underscore, then at most 62 letters, digits and underscores", f.field)
		}
	}
	if o.ReplicaPath == "" {
		o.ReplicaPath = "/clickhouse/tables/{shard}/{database}/{table}"
	}
	if !replicaPath.MatchString(o.ReplicaPath) {
		return errors.New("field replica_path: want letters, digits and _ / { } . - only")
	}
	return nil
}

// Migrate brings a database to the newest version of a schema: a directory of
// goose migrations that are templates over the options (see RenderSchema). It is
// safe to run from several processes at once, because every statement of a
// schema must be one that may be repeated (IF NOT EXISTS). Versions only go up.
func Migrate(ctx context.Context, db *sql.DB, schema fs.FS, o MigrateOptions, logger *slog.Logger) error {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	rendered, err := RenderSchema(schema, o)
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+o.Database+" "+o.onCluster()); err != nil {
		return fmt.Errorf("create database %s: %w", o.Database, err)
	}
	provider, err := goose.NewProvider(goose.DialectCustom, db, rendered,
		goose.WithStore(&versionTable{options: o}), goose.WithDisableGlobalRegistry(true), goose.WithSlog(logger))
	if err != nil {
		return fmt.Errorf("read migrations of %s: %w", o.Database, err)
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate database %s: %w", o.Database, err)
	}
	for _, r := range results {
		logger.InfoContext(ctx, "migrated", "database", o.Database, "version", r.Source.Version, "duration", r.Duration)
	}
	return nil
}

// RenderSchema fills in the templates of a schema. A template knows
//
//	{{.Database}}   the name of the database
//	{{.OnCluster}}  ON CLUSTER …, or nothing
//	{{engine "ReplacingMergeTree" "table" "version"}}  the engine, replicated by configuration, with further arguments
//	{{settings}}    the SETTINGS clause of a table whose rows must survive power loss once inserted
func RenderSchema(schema fs.FS, o MigrateOptions) (fs.FS, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	names, err := fs.Glob(schema, "*.sql")
	if err != nil || len(names) == 0 {
		return nil, errors.Join(errors.New("read schema: no *.sql file"), err)
	}
	rendered := fstest.MapFS{}
	for _, name := range names {
		text, err := fs.ReadFile(schema, name)
		if err != nil {
			return nil, fmt.Errorf("read schema: %w", err)
		}
		t, err := template.New(path.Base(name)).Option("missingkey=error").Funcs(o.functions()).Parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("read schema %s: %w", name, err)
		}
		var out bytes.Buffer
		if err := t.Execute(&out, struct{ Database, OnCluster string }{o.Database, o.onCluster()}); err != nil {
			return nil, fmt.Errorf("fill in schema %s: %w", name, err)
		}
		rendered[name] = &fstest.MapFile{Data: trimLines(out.Bytes()), Mode: 0o444}
	}
	return rendered, nil
}

// trimLines removes the blanks that empty template values leave behind.
func trimLines(text []byte) []byte {
	lines := bytes.Split(text, []byte("\n"))
	for i := range lines {
		lines[i] = bytes.TrimRight(lines[i], " ")
	}
	return bytes.Join(lines, []byte("\n"))
}

func (o *MigrateOptions) onCluster() string {
	if o.Cluster == "" {
		return ""
	}
	return "ON CLUSTER " + o.Cluster
}

func (o *MigrateOptions) functions() template.FuncMap {
	return template.FuncMap{"engine": o.engine, "settings": o.settings}
}

func (o *MigrateOptions) engine(family, table string, arguments ...string) string {
	if o.Replicated {
		family = "Replicated" + family
		arguments = append([]string{"'" + strings.ReplaceAll(o.ReplicaPath, "{table}", table) + "'", "'{replica}'"}, arguments...)
	}
	return family + "(" + strings.Join(arguments, ", ") + ")"
}

// settings: a part is synced to disk before its insert is acknowledged, for a
// committed offset must not outrun what survives power loss. A part of one
// insert is kept in one file (compact), so that this costs few syncs and not one
// per column. What merges write is not synced here: ClickHouse keeps the merged
// parts for minutes and goes back to them when it starts and finds the result
// damaged.
// Deduplication of insert blocks would drop a row that is written
// again after an erasure.
func (o *MigrateOptions) settings() string {
	list := []string{"min_bytes_for_wide_part = 67108864"}
	if !o.Unsynced {
		list = append(list, "fsync_after_insert = 1", "fsync_part_directory = 1")
	}
	if o.Replicated {
		list = append(list, "replicated_deduplication_window = 0")
	}
	if o.StoragePolicy != "" {
		list = append(list, "storage_policy = '"+o.StoragePolicy+"'")
	}
	return "SETTINGS " + strings.Join(list, ", ")
}
