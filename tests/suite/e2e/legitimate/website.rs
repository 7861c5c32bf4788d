//! nginx with a certificate of a CA of its own, and curl.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::service::{Service, run_client};
use crate::e2e::testbed::{FAMILIES, Family, Namespace, Testbed};
use crate::support::patience::Wait;

const SMALL: &str = "hello from the DMZ\n";
const NAME: &str = "www.dmz.example";

const SERVER: &str = r#"
    listen [::]:80 ipv6only=off;
    listen [::]:443 ssl http2 ipv6only=off;
    root www;
    client_max_body_size 0;
    location /upload/ { dav_methods PUT; create_full_put_path on; }
"#;

pub struct Website {
    nginx: std::sync::Mutex<Option<Service>>,
    folder: PathBuf,
}

/// How curl asks.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    Http1,
    Http2,
}
pub const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

impl Website {
    /// With a file `large` of so many bytes.
    pub fn start(testbed: &Testbed, bytes: usize) -> Website {
        let folder = testbed.folder.join("web");
        fs::create_dir_all(folder.join("www/upload")).expect("a folder");
        make_certificate(&folder);
        fs::write(folder.join("www/small"), SMALL).expect("a file");
        fs::write(folder.join("www/large"), noise(bytes)).expect("a file");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path tmp-{kind};\n"))
            .collect();
        let text = format!(
            "user root;\nworker_processes 1;\npid nginx.pid;\nerror_log error.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{\naccess_log off;\nkeepalive_timeout 600;\n{temporary}\
             ssl_certificate web.crt;\nssl_certificate_key web.key;\nserver {{{SERVER}}}\n}}\n"
        );
        fs::write(folder.join("nginx.conf"), text).expect("a file");
        let prefix = folder.display().to_string();
        let command = ["nginx", "-p", &prefix, "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"];
        let nginx = Service::start(
            testbed,
            &testbed.dmz,
            "nginx",
            &command,
            &[("tcp", "::", 80), ("tcp", "::", 443)],
        );
        Website { nginx: std::sync::Mutex::new(Some(nginx)), folder }
    }

    fn curl(
        &self,
        machine: &Namespace,
        family: &Family,
        protocol: Protocol,
        wait: Wait,
        more: &[&str],
    ) -> Option<String> {
        let authority = self.folder.join("ca.crt").display().to_string();
        let place = |port: u16| format!("{NAME}:{port}:{}", bracketed(family.web));
        let (plain, secure) = (place(80), place(443));
        let how = match protocol {
            Protocol::Http1 => "--http1.1",
            Protocol::Http2 => "--http2",
        };
        let fixed = [
            "curl",
            "-q",
            "-sS",
            "--fail",
            "--noproxy",
            "*",
            "--cacert",
            &authority,
            "--resolve",
            &plain,
            "--resolve",
            &secure,
            "--interface",
            family.peer,
            how,
        ];
        run_client(machine, wait, &[&fixed, more].concat())
    }

    /// Fetches the large file; whether it arrived whole and by this protocol.
    pub fn download(&self, testbed: &Testbed, family: &Family, protocol: Protocol, wait: Wait) -> bool {
        self.download_slowly(testbed, family, protocol, wait, "0")
    }

    /// At so many bytes a second, as `2M`.
    pub fn download_slowly(
        &self,
        testbed: &Testbed,
        family: &Family,
        protocol: Protocol,
        wait: Wait,
        rate: &str,
    ) -> bool {
        let target = self.scratch();
        let path = target.display().to_string();
        let url = url(protocol, "large");
        let said = self.curl(
            &testbed.internet,
            family,
            protocol,
            wait,
            &["--limit-rate", rate, "-w", "%{http_version} %{http_code}", "-o", &path, &url],
        );
        let whole = fs::read(&target).is_ok_and(|bytes| hash(&bytes) == self.hash());
        let _ = fs::remove_file(&target);
        said.as_deref() == Some(answer(protocol)) && whole
    }

    /// Fetches a small file; whether it arrived.
    pub fn visit(&self, testbed: &Testbed, family: &Family, protocol: Protocol, wait: Wait) -> bool {
        let said = self.curl(&testbed.internet, family, protocol, wait, &[&url(protocol, "small")]);
        said.as_deref() == Some(SMALL)
    }

    /// Files that are being fetched.
    pub fn count_scratch(&self) -> usize {
        let entries = fs::read_dir(&self.folder).expect("a folder").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("scratch-")).count()
    }

    /// Sends the large file; whether it lies there whole.
    pub fn upload(&self, testbed: &Testbed, family: &Family, protocol: Protocol, wait: Wait) -> bool {
        let scratch = self.scratch();
        let name = scratch.file_name().expect("a name").to_string_lossy().into_owned();
        let source = self.folder.join("www/large").display().to_string();
        let url = url(protocol, &format!("upload/{name}"));
        let sent =
            self.curl(&testbed.internet, family, protocol, wait, &["-T", &source, "-o", "/dev/null", &url]);
        let target = self.folder.join("www/upload").join(name);
        let whole = fs::read(&target).is_ok_and(|bytes| hash(&bytes) == self.hash());
        let _ = fs::remove_file(&target);
        sent.is_some() && whole
    }

    /// Ends the server, whatever it is doing.
    pub fn stop(&self) {
        self.nginx.lock().expect("the server").take();
    }

    fn hash(&self) -> Vec<u8> {
        hash(&fs::read(self.folder.join("www/large")).expect("the large file"))
    }

    /// A file of nobody else's.
    fn scratch(&self) -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        self.folder.join(format!("scratch-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }
}

fn url(protocol: Protocol, path: &str) -> String {
    match protocol {
        Protocol::Http1 => format!("http://{NAME}/{path}"),
        Protocol::Http2 => format!("https://{NAME}/{path}"),
    }
}

fn answer(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "1.1 200",
        Protocol::Http2 => "2 200",
    }
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// An address as it stands in a URL.
pub fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// Bytes that no offload folds and that differ everywhere (xorshift64).
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..bytes / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

fn make_certificate(folder: &std::path::Path) {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(folder).output().expect("openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl(
        &[
            &["req", "-x509"],
            &key[..],
            &["-days", "2", "-subj", "/CN=the test's CA", "-keyout", "ca.key", "-out", "ca.crt"],
        ]
        .concat(),
    );
    openssl(
        &[&["req"], &key[..], &["-subj", &format!("/CN={NAME}"), "-keyout", "web.key", "-out", "web.csr"]]
            .concat(),
    );
    fs::write(folder.join("names"), format!("subjectAltName=DNS:{NAME}\n")).expect("a file");
    openssl(&[
        "x509",
        "-req",
        "-in",
        "web.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "web.crt",
    ]);
}

/// For a `for` over both families and both protocols.
pub fn every_way() -> impl Iterator<Item = (Family, Protocol)> {
    FAMILIES.into_iter().flat_map(|family| PROTOCOLS.map(|protocol| (family, protocol)))
}
