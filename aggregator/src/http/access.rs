//! Asks who somebody is before anything of their request is read.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use chrono::Utc;

use super::{About, refused};
use crate::access::{Access, Denied, Scope};
use crate::error::{ErrorCode, Failure};

/// Who asks, as their token calls them.
#[derive(Debug, Clone)]
pub(super) struct Admitted(pub(super) Arc<str>);

/// Lets a request through, or says why not. Its body stays where it is.
pub(super) async fn guard(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let needed = Scope::needed(request.method().as_str(), request.uri().path());
    match access.admit(bearer(request.headers()), needed, Utc::now()) {
        Ok(name) => {
            if let Some(name) = name {
                request.extensions_mut().insert(Admitted(name));
            }
            next.run(request).await
        }
        Err(denied) => {
            let mut response = refused(failure(denied), About::Path);
            if !matches!(denied, Denied::Lacks(_)) {
                let scheme = HeaderValue::from_static("Bearer realm=\"gannet\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            }
            response
        }
    }
}

/// The token that comes with a request. Two of them are none: it would not be clear which one counts.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else { return Some(b"") };
    match value.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => Some(token.trim_ascii()),
        // Something came, and it is no token.
        _ => Some(b""),
    }
}

fn failure(denied: Denied) -> Failure {
    match denied {
        Denied::NoToken => Failure::new(ErrorCode::Unauthenticated, "no token came with the request")
            .hint("Send `Authorization: Bearer TOKEN`; commands take it from --token-file FILE."),
        Denied::Unknown => {
            Failure::new(ErrorCode::Unauthenticated, "the token is not one of this server, or no longer")
                .hint("Ask whoever runs the server; `gannet token new` makes one.")
        }
        Denied::Lacks(scope) => {
            let message = format!("the token does not have the scope `{}`", scope.name());
            Failure::new(ErrorCode::Forbidden, message)
                .hint("Ask whoever runs the server for a token with that scope.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&str], expect: Option<&str>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(bearer(&headers), expect.map(str::as_bytes), "{values:?}");
    }

    #[test]
    fn tokens_are_found() {
        check(&[], None);
        check(&["Bearer gannet_1"], Some("gannet_1"));
        check(&["bEARER  gannet_1 "], Some("gannet_1"));
        check(&["Bearer"], Some(""));
        check(&["Basic dTpw"], Some(""));
        check(&["Bearergannet_1"], Some(""));
        check(&["Bearer a", "Bearer b"], Some(""));
    }
}
