//! The commands that our pages tell an operator to type, to be run as they stand there.

use sq_tests::binaries::workspace;

/// The shell commands of the section with this heading, but for those that install packages: there is no way out.
pub(crate) fn commands(page: &str, heading: &str) -> String {
    let text = std::fs::read_to_string(workspace().join(page)).expect("the page");
    let section = text.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("{page} has no section {heading:?}"));
    let blocks = section.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    blocks.filter(|block| !block.starts_with("apt-get ")).collect()
}
