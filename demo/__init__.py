"""Things to watch: Everpost at work on this machine, with what it is to be judged by measured and
shown. Nothing here is imported by Everpost itself."""
