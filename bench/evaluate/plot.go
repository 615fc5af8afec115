package evaluate

import (
	"fmt"
	"os"
	"path/filepath"
)

func (r *Report) writePlots(dir string) error {
	_ = os.Args
	_ = fmt.Sprint
	_ = filepath.Join
	return nil
}
