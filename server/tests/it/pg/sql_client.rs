//! `tidemark sql`'s session against the protocol: what is printed, and when a script stops.

use super::fake::*;
use parking_lot::Mutex;
use std::io::Write;
use std::sync::Arc;
use tidemark_engine::seam::Clock;
use tidemark_server::client::{Connection, Output, Runner, Stopped, Target};
use tidemark_server::pg::{Settings, bind};

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a script; what was printed, and the line where it stopped.
async fn run(script: &str, keep_going: bool) -> (World, String, Option<usize>) {
    let world = world(Settings::default());
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let target = Target::local(listener.local_addr().unwrap(), []);
    let server = world.server.clone();
    world.clock.spawn("serve", Box::pin(async move { server.serve(listener, std::future::pending()).await }));
    let page = Page::default();
    let connection = Connection::open(&target, world.clock.as_ref()).await.unwrap();
    let mut runner =
        Runner::new(connection, Output::together(page.clone()), Arc::clone(&world.clock) as Arc<dyn Clock>);
    runner.stop_on_error = !keep_going;
    let stopped = match runner.run("script", script).await {
        Ok(()) => None,
        Err(Stopped::AtError { line, .. }) => Some(line),
        Err(Stopped::Client(error)) => panic!("{error}"),
    };
    let printed = String::from_utf8(page.0.lock().clone()).unwrap();
    (world, printed, stopped)
}

#[tokio::test]
async fn rows_tags_and_errors_are_printed_as_psql_prints_them() {
    let script = "\\echo begin\nseries 2;\n-- wrong\nwrong word;\nnothing;\n";
    let expected = "begin\n n \n---\n 1\n 2\n(2 rows)\n\nERROR:  syntax error at or near \"wrong\"\nLINE 1: wrong word;\n        ^\n";
    let (_, printed, stopped) = run(script, false).await;
    assert_eq!((printed.as_str(), stopped), (expected, Some(4)));
    let (_, printed, stopped) = run(script, true).await;
    assert_eq!((printed, stopped), (format!("{expected}NOTHING\n"), None));
}

#[tokio::test]
async fn a_script_can_say_itself_whether_errors_stop_it() {
    let (_, printed, stopped) =
        run("\\set ON_ERROR_STOP off\nwrong;\n\\set ON_ERROR_STOP\nwrong;\nnothing;", false).await;
    assert_eq!(stopped, Some(4));
    assert_eq!(printed.matches("ERROR:").count(), 2);
}

#[tokio::test]
async fn data_in_the_script_goes_to_its_copy() {
    let (world, printed, stopped) = run("copyin;\n1\ta;\n2\tb\n\\.\nnothing;\n", false).await;
    assert_eq!(stopped, None);
    assert_eq!(world.fake.copied.lock().as_slice(), b"1\ta;\n2\tb\n");
    assert!(printed.ends_with("NOTHING\n"), "{printed}");
}

#[tokio::test]
async fn copy_out_goes_to_the_page_without_a_tag() {
    let (_, printed, _) = run("copyout 1;", false).await;
    assert_eq!(printed, "0\tx\n0\ty\n");
}

#[tokio::test]
async fn commands_that_only_psql_knows_are_refused_with_a_hint() {
    let (_, printed, stopped) = run("\\d flights\n", false).await;
    assert_eq!(stopped, Some(1));
    assert!(printed.contains("invalid command \\d") && printed.contains("HINT:  "), "{printed}");
    let (_, printed, stopped) = run("\\copy t FROM 'there/is/none.csv' CSV\n", false).await;
    assert_eq!(stopped, Some(1));
    assert!(printed.contains("could not open file \"there/is/none.csv\": No such file or directory\n"), "{printed}");
}
