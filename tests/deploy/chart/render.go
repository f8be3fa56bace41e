// render writes a Helm chart's templates with Go's own text/template and Sprig, for machines without helm.
//
// Usage: render CHART RELEASE NAMESPACE [VALUES.yaml]
//
// Not helm: no sub-charts, no hooks, no schema, no cluster (`lookup` is absent). The template language, its functions,
// `include`, `tpl`, `required`, `toYaml` and the built-in objects are the same code or do the same.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(path string) map[string]interface{} {
	text, err := os.ReadFile(path)
	check(err)
	found := map[string]interface{}{}
	check(yaml.Unmarshal(text, &found))
	return found
}

func merge(base, over map[string]interface{}) map[string]interface{} {
	for key, value := range over {
		left, isMap := base[key].(map[string]interface{})
		right, alsoMap := value.(map[string]interface{})
		if isMap && alsoMap {
			base[key] = merge(left, right)
		} else {
			base[key] = value
		}
	}
	return base
}

func main() {
	chart, release, namespace := os.Args[1], os.Args[2], os.Args[3]
	values := read(filepath.Join(chart, "values.yaml"))
	if len(os.Args) > 4 {
		values = merge(values, read(os.Args[4]))
	}
	about := map[string]interface{}{}
	for key, value := range read(filepath.Join(chart, "Chart.yaml")) {
		about[strings.ToUpper(key[:1])+key[1:]] = value
	}
	root := template.New("chart").Option("missingkey=zero")
	functions := sprig.TxtFuncMap()
	functions["toYaml"] = func(value interface{}) string {
		text, err := yaml.Marshal(value)
		check(err)
		return strings.TrimSuffix(string(text), "\n")
	}
	functions["include"] = func(name string, data interface{}) (string, error) {
		var text bytes.Buffer
		err := root.ExecuteTemplate(&text, name, data)
		return text.String(), err
	}
	functions["required"] = func(message string, value interface{}) (interface{}, error) {
		if value == nil || value == "" {
			return nil, fmt.Errorf("%s", message)
		}
		return value, nil
	}
	root.Funcs(functions)
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	check(err)
	sort.Strings(files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(err)
		_, err = root.New(filepath.Base(file)).Parse(string(text))
		check(err)
	}
	data := map[string]interface{}{
		"Values":  values,
		"Chart":   about,
		"Release": map[string]interface{}{"Name": release, "Namespace": namespace, "Service": "Helm"},
	}
	for _, file := range files {
		if filepath.Ext(file) != ".yaml" {
			continue
		}
		var text bytes.Buffer
		check(root.ExecuteTemplate(&text, filepath.Base(file), data))
		if written := strings.ReplaceAll(text.String(), "<no value>", ""); strings.TrimSpace(written) != "" {
			fmt.Printf("---\n# Source: %s\n%s\n", filepath.Base(file), strings.TrimSpace(written))
		}
	}
}
