//! The admin API over its socket. Every response in these tests must be one that the API's description declares.

mod access;
mod bounds;
mod changes;
mod crowd;
mod description;
mod keys;
mod validation;

use serde_json::Value;
use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::setup::Setup;
use sq_tests::target::{SELECT, UPDATE};

/// A client with the admin key, and the document that its responses are checked against.
#[derive(Clone)]
struct Api {
    client: Client,
    document: Value,
}

impl Api {
    fn of(running: &Deployment) -> Self {
        let client = running.admin();
        let document = client.get("/admin/openapi.json").json();
        Self { client, document }
    }

    fn call(&self, method: &str, target: &str, body: Option<&str>) -> Answer {
        let answer = self.client.request(method, target, "", body.map(str::as_bytes));
        answer.assert_common_headers();
        self.assert_declared(method, target, answer.status);
        answer
    }

    fn get(&self, target: &str) -> Value {
        let answer = self.call("GET", target, None);
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer}");
        answer.json()
    }

    /// Adds a tenant, and returns its key.
    fn add(&self, name: &str) -> String {
        self.created("/admin/tenants/add", &format!("{{\"name\": \"{name}\"}}"))
    }

    /// A POST that creates a key.
    fn created(&self, target: &str, body: &str) -> String {
        let answer = self.call("POST", target, Some(body));
        assert_eq!(answer.status, 201, "{answer}");
        answer.json()["key"].as_str().expect("a key").to_owned()
    }

    fn patch(&self, name: &str, body: &str) -> Value {
        let answer = self.call("PATCH", &format!("/admin/tenants/{name}"), Some(body));
        assert_eq!(answer.status, 200, "{answer}");
        answer.json()
    }

    fn names(&self) -> Vec<String> {
        let list = self.get("/admin/tenants");
        let tenants = list["tenants"].as_array().expect("a list").iter();
        tenants.map(|tenant| tenant["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// Fails if the description does not declare this response for the request.
    fn assert_declared(&self, method: &str, target: &str, status: u16) {
        let path = target.split('?').next().unwrap();
        let method = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
        let operations = self.operations(path, &method);
        if operations.is_empty() {
            assert!(
                [404, 405, 421].contains(&status),
                "{method} {path} is not described, and answers {status}"
            );
        }
        for operation in operations {
            assert!(
                operation["responses"].get(status.to_string()).is_some(),
                "{method} {path} answers {status}, which is not declared"
            );
        }
    }

    /// The operations of the path itself, or else of the templates that match it.
    fn operations(&self, path: &str, method: &str) -> Vec<&Value> {
        let paths = self.document["paths"].as_object().unwrap();
        if let Some(operation) = paths.get(path).and_then(|item| item.get(method)) {
            return vec![operation];
        }
        let fits = |template: &str| {
            let (of_path, of_template) = (path.split('/'), template.split('/'));
            of_path.clone().count() == of_template.clone().count()
                && of_path.zip(of_template).all(|(part, wanted)| wanted.starts_with('{') || wanted == part)
        };
        let fitting = paths.iter().filter(|(template, _)| fits(template));
        fitting.filter_map(|(_, item)| item.get(method)).collect()
    }
}

/// A key is valid as soon as it is returned, even if the worker has not received it yet.
fn served(running: &Deployment, key: &str) {
    running.client(Some(key)).get(SELECT).ok();
}

fn start() -> (Deployment, Api) {
    let running = Deployment::start(&Setup::default());
    let api = Api::of(&running);
    (running, api)
}
