//! A browser controlled by a test: opens pages, presses keys, evaluates expressions. Speaks the DevTools protocol
//! (<https://chromedevtools.github.io/devtools-protocol/>) over two pipes on the browser's descriptors 3 and 4: JSON
//! messages, each followed by a NUL byte.

use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::browser::{Browser, PATIENCE, chromium, new_profile};
use crate::wait;

/// A browser with one page.
#[derive(Debug)]
pub struct DevTools {
    commands: std::io::PipeWriter,
    messages: Receiver<Value>,
    /// Events that no call has taken yet.
    events: Vec<Value>,
    session: Option<String>,
    sent: u64,
    // The browser ends before its folder does.
    _browser: Browser,
    _profile: TempDir,
}

impl DevTools {
    /// Starts a browser; `None`, with a notice, if no browser is installed.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(skipped: &str) -> Option<Self> {
        let profile = new_profile();
        let mut command = chromium(profile.path(), skipped)?;
        command.args(["--remote-debugging-pipe", "--hide-scrollbars", "about:blank"]);
        let (theirs, commands) = std::io::pipe().expect("a pipe");
        let (answers, also_theirs) = std::io::pipe().expect("a pipe");
        let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
        let mappings = vec![mapping(theirs.into(), 3), mapping(also_theirs.into(), 4)];
        command.fd_mappings(mappings).expect("two numbers that differ");
        let browser = Browser(command.spawn().expect("chromium can be started"));
        // The child has their other ends.
        drop(command);
        let messages = listen(answers);
        let (events, session) = (Vec::new(), None);
        let mut tools =
            Self { commands, messages, events, session, sent: 0, _browser: browser, _profile: profile };
        tools.attach();
        Some(tools)
    }

    fn attach(&mut self) {
        let page = wait::within(PATIENCE, || {
            let targets = self.call("Target.getTargets", json!({}));
            let targets = targets["targetInfos"].as_array().cloned().unwrap_or_default();
            targets.into_iter().find(|target| target["type"] == "page")
        });
        let page = page.expect("a page in the browser");
        let attached =
            self.call("Target.attachToTarget", json!({"targetId": page["targetId"], "flatten": true}));
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Calls a method of the protocol, and returns its result.
    ///
    /// # Panics
    /// The browser refuses it, or does not respond.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("a browser that reads");
        loop {
            let message = self.messages.recv_timeout(PATIENCE).expect("an answer of the browser's");
            if message["id"] == self.sent {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// The parameters of this event's occurrences since the last call, or since the start.
    pub fn take_events(&mut self, name: &str) -> Vec<Value> {
        let (wanted, others) =
            std::mem::take(&mut self.events).into_iter().partition(|event| event["method"] == name);
        self.events = others;
        let wanted: Vec<Value> = wanted;
        wanted.into_iter().map(|mut event| event["params"].take()).collect()
    }

    /// Opens a URL, and waits until its page is loaded and painted.
    pub fn open(&mut self, url: &str) {
        // A change of the fragment alone would not load the page.
        self.call("Page.navigate", json!({"url": "about:blank"}));
        self.call("Page.navigate", json!({"url": url}));
        self.until(&format!(
            "location.href === {} && document.readyState === 'complete' && \
             performance.getEntriesByName('first-contentful-paint').length > 0",
            Value::from(url)
        ));
    }

    /// The value of an expression; of a promise, the value it resolves to.
    ///
    /// # Panics
    /// It throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", params);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until the expression is true.
    ///
    /// # Panics
    /// It does not become true in time.
    pub fn until(&mut self, expression: &str) {
        let seen = wait::within(wait::PATIENCE, || (self.evaluate(expression) == true).then_some(()));
        if seen.is_none() {
            let text = self.evaluate("document.body.innerText");
            panic!("waited in vain for {expression}; the page says: {text}");
        }
    }

    /// Presses and releases a key: `Enter`, `Tab`, `Escape`, `ArrowRight`, …
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            "End" => (35, ""),
            "Home" => (36, ""),
            "ArrowLeft" => (37, ""),
            "ArrowUp" => (38, ""),
            "ArrowRight" => (39, ""),
            "ArrowDown" => (40, ""),
            other => panic!("what is the code of {other}?"),
        };
        let event = |kind: &str, text: &str| json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        self.call("Input.dispatchKeyEvent", event(down, text));
        self.call("Input.dispatchKeyEvent", event("keyUp", ""));
    }

    /// Types into the focused element.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Sets the window's size in pixels, and the preferred colour scheme: `light` or `dark`.
    pub fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.call("Emulation.setEmulatedMedia", json!({"features": [feature]}));
    }

    /// Writes a screenshot of the window.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn screenshot(&mut self, file: &Path) {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let picture = BASE64_STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, picture).expect("a file for the picture");
    }
}

/// Reads the browser's messages until it exits.
fn listen(answers: PipeReader) -> Receiver<Value> {
    let (sender, messages) = channel();
    std::thread::spawn(move || {
        for message in BufReader::new(answers).split(0).map_while(Result::ok) {
            let message = serde_json::from_slice(&message).unwrap_or_default();
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    messages
}
