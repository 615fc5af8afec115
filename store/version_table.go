package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3/database"
)

// versionTable remembers for goose which migrations a database has had. Beside
// goose's own for ClickHouse it can be replicated and lies in the database that
// it speaks of. Applying a migration twice leaves two rows, which is harmless.
type versionTable struct{ options MigrateOptions }

var _ database.Store = (*versionTable)(nil)

// Tablename implements database.Store.
func (v *versionTable) Tablename() string { return v.options.Database + ".schema_versions" }

// CreateVersionTable implements database.Store.
func (v *versionTable) CreateVersionTable(ctx context.Context, db database.DBTxConn) error {
	o := &v.options
	statement := "CREATE TABLE IF NOT EXISTS " + v.Tablename() + " " + o.onCluster() + ` (
	version_id Int64 COMMENT 'number of the migration',
	applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ` + o.engine("ReplacingMergeTree", "schema_versions") + " ORDER BY version_id " + o.settings()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("create table %s: %w", v.Tablename(), err)
	}
	return nil
}

// Insert implements database.Store.
func (v *versionTable) Insert(ctx context.Context, db database.DBTxConn, request database.InsertRequest) error {
	statement := fmt.Sprintf("INSERT INTO %s (version_id) SETTINGS async_insert = 0 VALUES (%d)", v.Tablename(), request.Version)
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("record version %d: %w", request.Version, err)
	}
	return nil
}

// Delete implements database.Store. Versions only go up.
func (v *versionTable) Delete(context.Context, database.DBTxConn, int64) error {
	return errors.New("remove a version: migrations are not undone")
}

// GetMigration implements database.Store.
func (v *versionTable) GetMigration(ctx context.Context, db database.DBTxConn, version int64) (*database.GetMigrationResult, error) {
	var result database.GetMigrationResult
	row := db.QueryRowContext(ctx, fmt.Sprintf("SELECT applied_at FROM %s WHERE version_id = %d LIMIT 1", v.Tablename(), version))
	switch err := row.Scan(&result.Timestamp); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, fmt.Errorf("%w: %d", database.ErrVersionNotFound, version)
	case err != nil:
		return nil, fmt.Errorf("read version %d: %w", version, err)
	}
	result.IsApplied = true
	return &result, nil
}

// GetLatestVersion implements database.Store.
func (v *versionTable) GetLatestVersion(ctx context.Context, db database.DBTxConn) (int64, error) {
	var version, rows int64
	row := db.QueryRowContext(ctx, "SELECT max(version_id), toInt64(count()) FROM "+v.Tablename())
	if err := row.Scan(&version, &rows); err != nil {
		return -1, fmt.Errorf("read latest version: %w", err)
	}
	if rows == 0 {
		return -1, fmt.Errorf("latest %w", database.ErrVersionNotFound)
	}
	return version, nil
}

// ListMigrations implements database.Store.
func (v *versionTable) ListMigrations(ctx context.Context, db database.DBTxConn) (list []*database.ListMigrationsResult, err error) {
	rows, err := db.QueryContext(ctx, "SELECT DISTINCT version_id FROM "+v.Tablename()+" ORDER BY version_id DESC")
	if err != nil {
		return nil, fmt.Errorf("list versions: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		r := &database.ListMigrationsResult{IsApplied: true}
		if err := rows.Scan(&r.Version); err != nil {
			return nil, fmt.Errorf("list versions: %w", err)
		}
		list = append(list, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list versions: %w", err)
	}
	return list, nil
}
