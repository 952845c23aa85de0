//! The custom resource definitions in `deploy/crds`, and the chart's copies of them, are what the agent's types say. `cargo xtask
//! crds` writes them anew.

use std::path::Path;

use ingress_agent::sources::virtual_ip_pool;

/// Said in the file, for who would edit it.
const HEAD: &str = "# Generated from the agent's types by `cargo xtask crds`.\n";

#[test]
fn definitions_are_those_of_the_types() {
    let definition = virtual_ip_pool::definition();
    let wanted = format!("{HEAD}{}", serde_saphyr::to_string(&definition).expect("a definition is plain data"));
    // Helm packs nothing from outside of the chart.
    for directory in ["crds", "charts/sluicegate/crds"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(directory).join("virtualippools.yaml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == wanted, "{} is not what the types say: run `cargo xtask crds`", path.display());
    }
}

/// What an API server asks of a structural schema: every field has a type, and nothing is left open.
#[test]
fn every_field_of_the_schema_has_a_type() {
    let definition = serde_json::to_value(virtual_ip_pool::definition()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut fields = 0;
    let mut todo = vec![(String::new(), schema)];
    while let Some((path, schema)) = todo.pop() {
        assert!(schema["type"].is_string(), "{path} has no type: {schema}");
        assert!(schema.get("$ref").is_none() && schema.get("anyOf").is_none(), "{path}: {schema}");
        fields += 1;
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            todo.push((format!("{path}.{name}"), inner));
        }
        for inside in ["items", "additionalProperties"] {
            todo.extend(schema.get(inside).map(|inner| (format!("{path}[]"), inner)));
        }
    }
    assert!(fields > 20, "{fields} fields");
    let required = &schema["properties"]["spec"]["required"];
    assert_eq!(required, &serde_json::json!(["addresses"]), "the rest has defaults");
}
