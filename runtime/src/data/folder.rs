//! Folder trees: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, where a class's index is the rank of its folder's name.

use super::dataset::{Dataset, Source, Split, check_count};
use super::decode::{decode, is_image_name};
use super::picture::Picture;
use crate::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// One file. A million of them are held, so no whole paths.
struct Entry {
    class: u32,
    file: Box<str>,
}

struct Tree {
    root: PathBuf,
    classes: Vec<OsString>,
    train: Vec<Entry>,
    val: Vec<Entry>,
}

/// Opens a folder tree. The classes are the folders of `train/`, or of `val/` when there is no `train/`.
pub(crate) fn open(root: &Path) -> Result<Dataset, Error> {
    let (train, val) = (root.join("train"), root.join("val"));
    let named = if train.is_dir() { &train } else { &val };
    let classes = names(named)?
        .into_iter()
        .filter(|name| named.join(name).is_dir())
        .collect();
    let mut tree = Tree {
        root: root.to_path_buf(),
        classes,
        train: Vec::new(),
        val: Vec::new(),
    };
    if tree.classes.is_empty() {
        return Err(Error::input(format!(
            "{}: holds no class folders; expected one folder of images for each class",
            named.display()
        )));
    }
    tree.train = tree.entries(Split::Train)?;
    tree.val = tree.entries(Split::Val)?;
    if tree.train.is_empty() && tree.val.is_empty() {
        return Err(Error::input(format!(
            "{}: its class folders hold no images; expected .jpg, .jpeg or .png files",
            root.display()
        )));
    }
    let names = tree
        .classes
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    Ok(Dataset::new(tree, names, root))
}

/// The names in a folder, sorted, without hidden ones.
fn names(folder: &Path) -> Result<Vec<OsString>, Error> {
    let fail = |error| Error::reading(folder, &error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

impl Tree {
    fn folder(&self, split: Split) -> PathBuf {
        self.root.join(match split {
            Split::Train => "train",
            Split::Val => "val",
        })
    }

    fn entries(&self, split: Split) -> Result<Vec<Entry>, Error> {
        let folder = self.folder(split);
        let mut entries = Vec::new();
        if !folder.is_dir() {
            return Ok(entries);
        }
        for name in names(&folder)? {
            let path = folder.join(&name);
            if !path.is_dir() {
                continue;
            }
            let Ok(class) = self.classes.binary_search(&name) else {
                return Err(Error::input(format!(
                    "{}: train/ has no class of this name; add it there or remove it here",
                    path.display()
                )));
            };
            for file in names(&path)? {
                if !is_image_name(Path::new(&file)) {
                    continue;
                }
                let file = file.into_string().map_err(|file| {
                    Error::input(format!(
                        "{}: the name is not UTF-8; rename it",
                        path.join(file).display()
                    ))
                })?;
                entries.push(Entry {
                    class: class as u32,
                    file: file.into(),
                });
            }
        }
        check_count(entries.len(), &folder)?;
        Ok(entries)
    }

    fn entry(&self, split: Split, index: usize) -> &Entry {
        match split {
            Split::Train => &self.train[index],
            Split::Val => &self.val[index],
        }
    }

    fn path(&self, split: Split, index: usize) -> PathBuf {
        let entry = self.entry(split, index);
        self.folder(split)
            .join(&self.classes[entry.class as usize])
            .join(&*entry.file)
    }
}

impl Source for Tree {
    fn len(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train.len(),
            Split::Val => self.val.len(),
        }
    }

    fn sample(&self, split: Split, index: usize) -> Result<(Picture<'_>, i64), Error> {
        let path = self.path(split, index);
        // Whoever opens a pipe waits for its other end.
        if std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Error::input(format!(
                "{}: is not a regular file; remove it",
                path.display()
            )));
        }
        Ok((decode(&path)?, i64::from(self.entry(split, index).class)))
    }

    fn name(&self, split: Split, index: usize) -> String {
        self.path(split, index).display().to_string()
    }

    fn shape(&self) -> Option<[usize; 3]> {
        None
    }
}
