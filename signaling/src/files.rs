//! The web app: embedded in the program, or read from `--web-root`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use rust_embed::RustEmbed;
use sha2::{Digest as _, Sha256};

/// The page of the app.
pub const INDEX: &str = "index.html";
/// The build puts the hash of their content into the names of the files below this folder.
const HASHED: &str = "assets/";
/// Largest file of the app, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_FIRST: HeaderValue = HeaderValue::from_static("no-cache");

/// What is served while there is no app.
const PLACEHOLDER: &str = "<!doctype html>\n<html lang=\"en\">\n<title>Castling</title>\n\
    <h1>Castling runs, but its web app is not built</h1>\n\
    <p>The command <code>make run</code> builds the app and starts the server with it.</p>\n\
    </html>\n";

#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Embedded;

/// Where the app's files come from.
#[derive(Clone, Debug)]
pub enum Files {
    /// From the program itself.
    Embedded,
    /// From this folder, read anew each time.
    Folder(PathBuf),
}

impl Files {
    /// The app's page.
    pub async fn index(&self, request: &HeaderMap) -> Response<Body> {
        let page = self.read(INDEX).await.unwrap_or(Cow::Borrowed(PLACEHOLDER.as_bytes()));
        answer(INDEX, page, request)
    }

    /// The file at `path`, without leading slash and still percent-encoded, or `None`.
    pub async fn file(&self, path: &str, request: &HeaderMap) -> Option<Response<Body>> {
        Some(answer(path, self.read(path).await?, request))
    }

    async fn read(&self, path: &str) -> Option<Cow<'static, [u8]>> {
        if !is_plain(path) {
            return None;
        }
        match self {
            Self::Embedded => Embedded::get(path).map(|file| file.data),
            Self::Folder(root) => {
                let (root, path) = (root.clone(), path.to_owned());
                let read = tokio::task::spawn_blocking(move || read_below(&root, &path));
                read.await.ok().flatten().map(Cow::Owned)
            }
        }
    }
}

/// Nothing but names between slashes: no way up, no hidden file, nothing percent-encoded. The
/// build makes no other names.
fn is_plain(path: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    path.split('/')
        .all(|name| !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed))
}

/// Reads a file that lies below `root` even when links are followed.
fn read_below(root: &Path, path: &str) -> Option<Vec<u8>> {
    let root = root.canonicalize().ok()?;
    let file = root.join(path).canonicalize().ok()?;
    let size = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    let inside = file.starts_with(&root) && size <= FILE_BYTES_MAX;
    inside.then(|| std::fs::read(file).ok()).flatten()
}

fn answer(path: &str, data: Cow<'static, [u8]>, request: &HeaderMap) -> Response<Body> {
    let hash = Sha256::digest(&data);
    let digits: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{digits}\"");
    let known = request.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let fresh = known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag));
    let mut response = if fresh {
        Response::new(Body::empty())
    } else {
        Response::new(match data {
            Cow::Borrowed(bytes) => Body::from(bytes),
            Cow::Owned(bytes) => Body::from(bytes),
        })
    };
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime(path)));
    headers.insert(header::ETAG, tag.parse().expect("hexadecimal digits in quotes"));
    let hashed = path.starts_with(HASHED);
    headers.insert(header::CACHE_CONTROL, if hashed { FOR_EVER } else { ASK_FIRST });
    response
}

fn mime(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("woff2") => "font/woff2",
        Some("wasm") => "application/wasm",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_are_looked_up() {
        for good in ["index.html", "assets/index-B1_x.js", "a/b/c.svg"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "/etc/passwd",
            ".git/config",
            "a/.b",
            "%2e%2e/x",
            "a\\..\\b",
            "a\0b",
            "c:x",
        ] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_link_out_of_the_folder_leads_nowhere() {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path().join("root");
        std::fs::create_dir(&root).expect("root");
        std::fs::write(folder.path().join("secret"), "x").expect("secret");
        std::fs::write(root.join("page.html"), "page").expect("page");
        std::os::unix::fs::symlink(folder.path().join("secret"), root.join("link")).expect("link");
        assert_eq!(read_below(&root, "page.html").as_deref(), Some(&b"page"[..]));
        assert_eq!(read_below(&root, "link"), None);
        assert_eq!(read_below(&root, "."), None);
    }
}
