//! The routes of the client API: the table by which the gateway routes and the worker serves.

use crate::text_enum::text_enum;

text_enum! {
    /// A command of the client API, with the last part of its path: the command's name in logs and metrics too.
    #[derive(Hash)]
    #[expect(missing_docs, reason = "each variant is the command of its name; docs/api.md says what it does")]
    pub enum Route {
        Version = "version",
        Select = "select",
        Insert = "insert",
        Update = "update",
        Delete = "delete",
        Load = "load",
        Status = "status",
        Toc = "toc",
        Get = "get",
        Checksum = "checksum",
        Delta = "delta",
        Query = "query",
        Where = "where",
        JsonExport = "json-export",
        Phexts = "phexts",
    }
}

/// Which methods a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Methods {
    /// GET alone, which only reads, and so HEAD.
    Get,
    /// POST alone.
    Post,
    /// Either, and GET may write.
    GetPost,
    /// Either, and GET only reads: HEAD too.
    GetHeadPost,
}

impl Route {
    /// The route of a path, which must match exactly.
    pub fn from_path(path: &str) -> Option<Self> {
        path.strip_prefix("/api/v2/")?.parse().ok()
    }

    /// Which methods it takes.
    pub fn methods(self) -> Methods {
        match self {
            Self::Insert | Self::Update | Self::Delete => Methods::GetPost,
            Self::Delta | Self::Query => Methods::GetHeadPost,
            Self::Where => Methods::Post,
            Self::Version
            | Self::Select
            | Self::Load
            | Self::Status
            | Self::Toc
            | Self::Get
            | Self::Checksum
            | Self::JsonExport
            | Self::Phexts => Methods::Get,
        }
    }

    /// Whether it uses a body.
    pub fn takes_body(self) -> bool {
        self.methods() != Methods::Get
    }

    /// Whether its body may be a form. `where` names no phext, so its body is the text even with the type of a form.
    pub fn takes_form(self) -> bool {
        matches!(self.methods(), Methods::GetPost | Methods::GetHeadPost)
    }

    /// Whether its answer has an `ETag`, by which a client may ask for it only if it has changed.
    pub fn is_conditional_read(self) -> bool {
        matches!(self, Self::Select | Self::Get)
    }

    /// Whether it changes a scroll. Such a request needs a key with the scope `write`; the gateway gives it a repeat
    /// key, by which the worker recognises it when it is sent again.
    pub fn writes(self) -> bool {
        self.methods() == Methods::GetPost
    }
}

impl Methods {
    /// Whether the method is one of these.
    pub fn allow(self, method: &str) -> bool {
        match self {
            Self::Get => matches!(method, "GET" | "HEAD"),
            Self::Post => method == "POST",
            Self::GetPost => matches!(method, "GET" | "POST"),
            Self::GetHeadPost => matches!(method, "GET" | "HEAD" | "POST"),
        }
    }

    /// The value of the `Allow` header (RFC 9110, 10.2.1).
    pub fn allow_header(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD, OPTIONS",
            Self::Post => "POST, OPTIONS",
            Self::GetPost => "GET, POST, OPTIONS",
            Self::GetHeadPost => "GET, HEAD, POST, OPTIONS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_taken_where_get_only_reads() {
        for route in Route::ALL {
            let methods = route.methods();
            assert_eq!(methods.allow("HEAD"), methods.allow("GET") && !route.writes(), "{route:?}");
            for method in ["GET", "HEAD", "POST", "OPTIONS"] {
                let is_listed = methods.allow_header().split(", ").any(|listed| listed == method);
                assert_eq!(is_listed, methods.allow(method) || method == "OPTIONS", "{route:?} {method}");
            }
        }
    }

    #[test]
    fn a_path_matches_to_the_letter() {
        for route in Route::ALL {
            assert_eq!(Route::from_path(&format!("/api/v2/{}", route.as_str())), Some(route));
        }
        for path in
            ["/api/v2/", "/api/v2/selectx", "/api/v2/select/", "/API/v2/select", "//api/v2/select", "/"]
        {
            assert_eq!(Route::from_path(path), None, "{path}");
        }
    }
}
