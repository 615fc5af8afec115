package vault

import (
	"embed"
	"io/fs"
)

//go:embed schema/*.sql
var embeddedSchema embed.FS

// Schema returns the migrations of the vault's database: goose migrations that
// are templates over the name of the database, its cluster and its engines, as
// the migrations of the store are.
func Schema() fs.FS {
	sub, err := fs.Sub(embeddedSchema, "schema")
	if err != nil {
		panic("vault: schema directory is not embedded: " + err.Error())
	}
	return sub
}
