//! The configuration that the running kernel was built with.

use std::io::{self, Read as _};
use std::path::Path;

use fs_err as fs;

/// More than this no configuration is long: those of distributions have 300 KB.
const LARGEST: u64 = 16 << 20;

/// Its text and the file it is from; `None` where the machine has no such file, as in a container without the host's folders.
pub(super) fn read() -> io::Result<Option<(Vec<u8>, String)>> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    first(&[
        "/proc/config.gz".to_owned(),
        format!("/boot/config-{release}"),
        format!("/usr/lib/modules/{release}/config"),
    ])
}

fn first(places: &[String]) -> io::Result<Option<(Vec<u8>, String)>> {
    for place in places {
        let file = match fs::File::open(place) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let mut text = Vec::new();
        if Path::new(place).extension().is_some_and(|end| end == "gz") {
            flate2::read::GzDecoder::new(file).take(LARGEST).read_to_end(&mut text)?;
        } else {
            file.take(LARGEST).read_to_end(&mut text)?;
        }
        return Ok(Some((text, place.clone())));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::first;

    #[test]
    fn the_first_file_that_is_there_is_read_plain_or_packed() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let places = [place("config.gz"), place("config-6.1")];
        assert_eq!(first(&places).expect("nothing is no error"), None);
        fs_err::write(&places[1], "CONFIG_NET=y\n").expect("written");
        assert_eq!(first(&places).expect("read"), Some((b"CONFIG_NET=y\n".to_vec(), places[1].clone())));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(b"CONFIG_VETH=m\n").expect("memory takes it");
        fs_err::write(&places[0], gzip.finish().expect("memory takes it")).expect("written");
        assert_eq!(first(&places).expect("read"), Some((b"CONFIG_VETH=m\n".to_vec(), places[0].clone())));
        fs_err::write(&places[0], b"\x1f\x8b\x08 cut").expect("written");
        assert!(first(&places).is_err());
    }
}
