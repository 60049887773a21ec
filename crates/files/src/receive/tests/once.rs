//! Names that a sender gives twice.

use super::places::MIRROR;
use super::*;

/// The second would take away, or be taken for, what was reported as stored.
#[test]
fn one_name_twice_is_taken_once_where_the_rest_is_removed() {
    let again: [Vec<(ToReceiver, &[u8])>; 4] = [
        vec![small(b"x", b"second")],
        vec![dir(b"x"), small(b"y", b"second"), leave()],
        vec![(ToReceiver::File(file(b"x", 6)), b""), data(0, b"second"), end(6, b"second")],
        vec![(
            ToReceiver::Link(Link {
                name: ByteBuf::from("x"),
                target: ByteBuf::from("second"),
                meta: META,
            }),
            b"",
        )],
    ];
    for twice in again {
        let mut bench = Bench::new();
        let sent = [vec![dir(b"d"), small(b"x", b"first")], twice, vec![leave(), done(2)]].concat();
        assert!(bench.take(MIRROR, &sent).unwrap(), "{:?}", bench.said);
        assert_eq!(fs::read(bench.path().join("d/x")).unwrap(), b"first");
        let said = format!("{:?}", bench.said);
        assert_eq!(said.matches("Stored(").count(), 2, "the folder, and what came first: {said}");
        assert_eq!(said.matches("named it twice").count(), 1, "{said}");
    }
}

/// A second visit would remove what the first has stored, and reported.
#[test]
fn a_folder_that_comes_twice_keeps_what_came_first() {
    let at = tempfile::tempdir().unwrap();
    let rules = Rules { store: MIRROR, recursive: true, links: false, expected: &|_| true };
    let landing = Landing::find(at.path().as_os_str().as_bytes(), Target::Into, true).unwrap();
    let mut ignored = |_| Ok(());
    let mut receiver = Receiver::new(landing, rules, Scraps::default(), &mut ignored);
    for (message, body) in [dir(b"d"), dir(b"in"), small(b"x", b"first"), leave()] {
        receiver.take(message, body).unwrap();
    }
    // As after many files.
    receiver.settle().unwrap();
    for (message, body) in [dir(b"in"), leave(), leave(), done(1)] {
        receiver.take(message, body).unwrap();
    }
    assert_eq!(fs::read(at.path().join("d/in/x")).unwrap(), b"first");
}

#[test]
fn one_name_twice_at_the_top_ends_it() {
    let names = crate::names::Names::of([&b"f"[..]], false);
    let expected = |name: &[u8]| names.expect(name);
    let (store, recursive) = (Store::default(), true);
    let rules = Rules { store, recursive, links: false, expected: &expected };
    let mut bench = Bench::new();
    let sent = [small(b"f", b"first"), small(b"f", b"second"), done(2)];
    refused(bench.take_by(rules, &sent), "'f', which was not asked for, or came before");
}

/// Two copies of one tree, at once: each folder comes twice, and what came last stays, in whatever order
/// folders are seen to.
#[test]
fn of_one_name_twice_among_many_the_last_one_stays() {
    let mut bench = Bench::new();
    let folders: Vec<_> = (0..50).map(|n| format!("d{n}").into_bytes()).collect();
    let tree = |content: &'static [u8]| {
        let one = move |name: &Vec<u8>| {
            vec![dir(name), small(b"x", content), small(b"y", content), leave()]
        };
        folders.iter().flat_map(one).collect::<Vec<_>>()
    };
    let sent = [vec![dir(b"d")], tree(b"first"), tree(b"second"), vec![leave(), done(200)]];
    assert!(bench.take(Store::default(), &sent.concat()).unwrap(), "{:?}", bench.said);
    for folder in &folders {
        let folder = bench.path().join("d").join(std::str::from_utf8(folder).unwrap());
        for name in ["x", "y"] {
            assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), "second", "{folder:?}");
        }
    }
}
