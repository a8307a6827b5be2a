//! The description of the API is complete and valid OpenAPI 3.1.

use std::collections::BTreeSet;

use serde_json::Value;

use super::start;

/// Every route of the contract: method, path, whether it needs the key.
const ROUTES: [(&str, &str, bool); 12] = [
    ("get", "/health", false),
    ("get", "/ready", false),
    ("get", "/metrics", false),
    ("get", "/admin/tenants", true),
    ("post", "/admin/tenants/add", true),
    ("get", "/admin/tenants/{name}", true),
    ("patch", "/admin/tenants/{name}", true),
    ("delete", "/admin/tenants/{name}", true),
    ("get", "/admin/tenants/{name}/stats", true),
    ("post", "/admin/tenants/{name}/keys", true),
    ("delete", "/admin/tenants/{name}/keys/{id}", true),
    ("post", "/admin/reload", true),
];

/// All references in a value.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| match value.as_str() {
            Some(target) if name == "$ref" => _ = found.insert(target.to_owned()),
            _ => references(value, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn description_has_every_route_of_the_contract() {
    let (_running, api) = start();
    let document = &api.document;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["components"]["securitySchemes"]["admin_key"]["scheme"], "bearer");
    for (method, path, is_keyed) in ROUTES {
        let operation = &document["paths"][path][method];
        assert!(operation.is_object(), "{method} {path} is not described");
        let security = &operation["security"];
        assert_eq!(security[0].get("admin_key").is_some(), is_keyed, "{method} {path}: {security}");
        assert_eq!(operation["responses"].get("401").is_some(), is_keyed, "{method} {path}");
    }
}

#[test]
fn each_operation_is_complete() {
    let (_running, api) = start();
    let mut ids = BTreeSet::new();
    for (path, item) in api.document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let shown = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{shown} says nothing");
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{shown} has no id"));
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                let is_it = |parameter: &&Value| parameter["name"] == name && parameter["in"] == "path";
                let parameter = parameters.iter().find(is_it).unwrap_or_else(|| panic!("{shown}: no {name}"));
                assert_eq!(parameter["required"], true, "{shown}: {name}");
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(!response["description"].as_str().unwrap().is_empty(), "{shown} {status}");
                let has_problem = response["content"].get("application/problem+json").is_some();
                assert_eq!(has_problem, status.as_str() >= "400", "{shown} {status}");
            }
        }
    }
    let mut found = BTreeSet::new();
    references(&api.document, &mut found);
    assert!(found.contains("#/components/schemas/Problem"), "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("a place in the document");
        assert!(api.document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn responses_match_their_schemas() {
    let (running, api) = start();
    let schemas = &api.document["components"]["schemas"];
    let assert_same = |answer: &Value, schema: &str| {
        let members: BTreeSet<&String> = answer.as_object().unwrap().keys().collect();
        let named: BTreeSet<&String> = schemas[schema]["properties"].as_object().unwrap().keys().collect();
        assert_eq!(members, named, "{schema}");
    };
    assert_same(&api.get("/admin/tenants/alice"), "Tenant");
    assert_same(&api.get("/admin/tenants/alice")["keys"][0], "Key");
    assert_same(&api.get("/admin/tenants/alice/stats"), "Stats");
    assert_same(&api.get("/admin/tenants"), "TenantList");
    assert_same(&running.admin().get("/health").json(), "Health");
    let added = api.call("POST", "/admin/tenants/add", Some(r#"{"name": "carol"}"#)).json();
    assert_same(&added, "IssuedKey");
    assert_same(&api.call("DELETE", "/admin/tenants/carol", None).json(), "RemovedTenant");
    assert_same(&api.call("POST", "/admin/reload", None).json(), "Reloaded");
    let problem = api.call("GET", "/admin/tenants/nobody", None).problem(404, "unknown_tenant");
    let named = schemas["Problem"]["properties"].as_object().unwrap();
    assert!(problem.as_object().unwrap().keys().all(|member| named.contains_key(member)), "{problem}");
}

/// `Allow` and the description agree for every path.
#[test]
fn allow_of_a_405_matches_the_description() {
    let (running, api) = start();
    for name in ["add", "zoe"] {
        api.add(name);
    }
    for (path, item) in api.document["paths"].as_object().unwrap() {
        let mut described: BTreeSet<String> =
            item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        if described.contains("GET") {
            described.insert("HEAD".to_owned());
        }
        let target = path.replace("{name}", "zoe").replace("{id}", "k1");
        for method in ["PUT", "OPTIONS", "PATCH", "DELETE", "POST", "GET"] {
            if described.contains(method) {
                continue;
            }
            let refused = running.admin().request(method, &target, "", None);
            refused.problem(405, "method_not_allowed");
            let allow = refused.header("allow").unwrap_or_else(|| panic!("{method} {target}: {refused}"));
            let allowed: BTreeSet<String> = allow.split(',').map(|method| method.trim().to_owned()).collect();
            assert_eq!(allowed, described, "{method} {target}");
            assert_eq!(allow.split(',').count(), allowed.len(), "a method is there twice: {allow}");
        }
    }
}

/// Bodies that the description allows are accepted, and others are refused.
#[test]
fn empty_bodies_and_nulls_are_accepted_as_described() {
    let (_running, api) = start();
    let schemas = &api.document["components"]["schemas"];
    for (method, target, schema) in [
        ("post", "/admin/tenants/add", "NewTenant"),
        ("patch", "/admin/tenants/{name}", "TenantChange"),
        ("patch", "/admin/tenants/add", "TenantChange"),
        ("post", "/admin/tenants/{name}/keys", "KeyTerms"),
    ] {
        let body = &api.document["paths"][target][method]["requestBody"];
        let (schema, is_required) = (&schemas[schema], body["required"] == true);
        let needs_fields = schema["minProperties"] == 1 || schema["required"].is_array();
        let takes_null = body["content"]["application/json"]["schema"].to_string().contains("\"null\"");
        let at = target.replace("{name}", "alice");
        if target == "/admin/tenants/add" && method == "patch" {
            api.add("add");
        }
        let status = |body: Option<&str>| api.call(&method.to_uppercase(), &at, body).status;
        assert_eq!(status(Some("{}")) < 300, !needs_fields, "{method} {target} {{}}");
        assert_eq!(status(Some(" null ")) < 300, takes_null, "{method} {target} null");
        assert_eq!(status(None) < 300, !is_required, "{method} {target} without a body");
        // A field that may be null.
        for (field, described) in schema["properties"].as_object().unwrap() {
            let may_be_null =
                described["type"].as_array().is_some_and(|types| types.contains(&"null".into()));
            let mut fields = serde_json::Map::from_iter([(field.clone(), Value::Null)]);
            if schema["required"].is_array() && field != "name" {
                fields.insert("name".to_owned(), format!("x-{}", field.replace('_', "-")).into());
            }
            let body = Value::from(fields).to_string();
            assert_eq!(status(Some(&body)) < 300, may_be_null, "{method} {target} {body}");
        }
    }
}
