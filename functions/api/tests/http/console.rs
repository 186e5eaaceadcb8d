//! The console: a page that loads nothing from elsewhere and holds no data itself.

use axum::body::Body;
use http::Request;

use crate::stage::stage;

#[tokio::test]
async fn the_console_is_served_to_anybody_and_loads_nothing_from_elsewhere() {
    let stage = stage().await;
    for (path, kind) in [
        ("/console", "text/html"),
        ("/console/app.js", "text/javascript"),
        ("/console/style.css", "text/css"),
    ] {
        let came = stage.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(came.status, 200, "{path}");
        assert!(came.headers["content-type"].to_str().unwrap().starts_with(kind), "{path}");
        let policy = came.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!came.text.contains("http://") && !came.text.contains("https://"), "{path}");
    }
}
