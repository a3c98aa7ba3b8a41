// What the theme leaves out for those who read by keyboard or by ear.
addEventListener("DOMContentLoaded", () => {
  for (const caption of document.querySelectorAll("p.caption[role=heading]")) caption.setAttribute("aria-level", "2");
  // What scrolls is reached by Tab, and then scrolls by the arrow keys.
  for (const box of document.querySelectorAll("pre, .table-wrapper, .sidebar-scroll, .toc-scroll, .gallery-output")) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
  }
});
