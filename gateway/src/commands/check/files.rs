//! Checks whether the system's user may use its files. Requests for a file that root or another user has left there fail.

use std::os::unix::fs::MetadataExt;

use rustix::process::geteuid;
use sq_shared::access::{self, Denied};
use sq_shared::config::Config;
use sq_shared::layout;
use sq_shared::process::output::note;
use sq_shared::registry::Registry;

/// How many are listed; one wrong `cp` can cause thousands.
const LISTED: usize = 100;

/// Lists the files that the system's user may not use; `None` if it may use all of them. This process acts as that user.
pub(super) fn list_denied(config: &Config, registry: &Registry) -> Option<String> {
    let gateway = &config.gateway;
    let me = geteuid().as_raw();
    let owners = [&gateway.data_root, &gateway.tenants].map(|path| path.metadata().map(|found| found.uid()));
    if me != 0 && !owners.iter().flatten().any(|owner| *owner == me) {
        note(
            "warning: run this as root or as the system's user to check whether that user may use all files",
        );
        return None;
    }
    let denied = denied(config, registry);
    if denied.is_empty() {
        return None;
    }
    let mut lines: Vec<String> = denied.iter().take(LISTED).map(Denied::to_string).collect();
    if denied.len() > LISTED {
        lines.push(format!("and {} more", denied.len() - LISTED));
    }
    let plural = if denied.len() == 1 { "" } else { "s" };
    let text = lines.join("\n");
    Some(format!("{} path{plural} that the system's user may not use\n{text}", denied.len()))
}

fn denied(config: &Config, registry: &Registry) -> Vec<Denied> {
    let gateway = &config.gateway;
    // These may be links; the files they lead to matter.
    let (config_file, registry_file) = (layout::resolved(&config.path), layout::resolved(&gateway.tenants));
    let files = [
        layout::registry_lock(&registry_file),
        layout::audit_log(&config.path),
        layout::keys_file(&layout::folder_of(&config.path)),
    ];
    let mut found = Vec::new();
    // An unreadable config or registry has been reported already.
    found.extend(access::readable_file(&config_file));
    found.extend(access::readable_file(&registry_file));
    found.extend(files.iter().filter_map(|file| access::file(file)));
    found.extend(access::readable_file(&layout::data_root_id(&config.path)));
    let data_root = layout::resolved(&gateway.data_root);
    let (notes, archives) = (layout::tenant_notes_dir(&data_root), layout::archives_dir(&data_root));
    found.extend([&data_root, &notes, &archives].into_iter().filter_map(|folder| access::directory(folder)));
    found.extend(access::readable_file(&layout::data_root_marker(&data_root)));
    let noted = std::fs::read_dir(notes).into_iter().flatten().flatten();
    found.extend(noted.filter_map(|note| access::file(&note.path())));
    for tenant in &registry.tenants {
        found.extend(access::tenant_directory(&tenant.directory(&gateway.data_root)));
    }
    found
}
