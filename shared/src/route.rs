//! The routes of the client API: the one table that the gateway routes by and the worker serves.

/// A command of the client API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the command of its name; docs/api.md says what it does")]
pub enum Route {
    Version,
    Select,
    Insert,
    Update,
    Delete,
    Load,
    Status,
    Toc,
    Get,
    Checksum,
    Delta,
    Query,
    Where,
    JsonExport,
    Phexts,
}

/// Which methods a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Methods {
    /// GET alone.
    Get,
    /// POST alone.
    Post,
    /// Either.
    GetPost,
}

impl Route {
    /// Every route, in the order of the contract.
    pub const ALL: [Self; 15] = [
        Self::Version,
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Load,
        Self::Status,
        Self::Toc,
        Self::Get,
        Self::Checksum,
        Self::Delta,
        Self::Query,
        Self::Where,
        Self::JsonExport,
        Self::Phexts,
    ];

    /// The route of a path, which must match to the letter.
    pub fn of_path(path: &str) -> Option<Self> {
        let name = path.strip_prefix("/api/v2/")?;
        Self::ALL.into_iter().find(|route| route.name() == name)
    }

    /// The last part of the path: the command's name in logs and metrics too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Load => "load",
            Self::Status => "status",
            Self::Toc => "toc",
            Self::Get => "get",
            Self::Checksum => "checksum",
            Self::Delta => "delta",
            Self::Query => "query",
            Self::Where => "where",
            Self::JsonExport => "json-export",
            Self::Phexts => "phexts",
        }
    }

    /// Which methods it takes.
    pub fn methods(self) -> Methods {
        match self {
            Self::Insert | Self::Update | Self::Delete | Self::Delta | Self::Query => Methods::GetPost,
            Self::Where => Methods::Post,
            _ => Methods::Get,
        }
    }

    /// Whether it changes a scroll: such a request needs a key with the scope `write`, and goes
    /// to the worker with a key of its own, by which the worker knows it when it is sent again.
    pub fn writes(self) -> bool {
        matches!(self, Self::Insert | Self::Update | Self::Delete)
    }
}

impl Methods {
    /// Whether the method is one of these.
    pub fn allow(self, method: &str) -> bool {
        match self {
            Self::Get => method == "GET",
            Self::Post => method == "POST",
            Self::GetPost => method == "GET" || method == "POST",
        }
    }

    /// The value of the `Allow` header (RFC 9110, 10.2.1).
    pub fn allow_header(self) -> &'static str {
        match self {
            Self::Get => "GET, OPTIONS",
            Self::Post => "POST, OPTIONS",
            Self::GetPost => "GET, POST, OPTIONS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_matches_to_the_letter() {
        for route in Route::ALL {
            assert_eq!(Route::of_path(&format!("/api/v2/{}", route.name())), Some(route));
        }
        for path in
            ["/api/v2/", "/api/v2/selectx", "/api/v2/select/", "/API/v2/select", "//api/v2/select", "/"]
        {
            assert_eq!(Route::of_path(path), None, "{path}");
        }
    }
}
