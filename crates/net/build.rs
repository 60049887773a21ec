//! Warns about a build that would make every command 50 ms slower.

fn main() {
    println!("cargo:rerun-if-env-changed=AWS_LC_SYS_NO_JITTER_ENTROPY");
    if std::env::var("AWS_LC_SYS_NO_JITTER_ENTROPY").as_deref() != Ok("1") {
        println!(
            "cargo:warning=AWS_LC_SYS_NO_JITTER_ENTROPY=1 is not set, so every process that makes \
             a TLS connection will first spend about 50 ms on gathering entropy; build inside the \
             workspace, whose .cargo/config.toml sets it"
        );
    }
}
