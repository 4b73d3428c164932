"use client";

/** Light or dark, against what the system says; remembered here alone. */
export function ThemeSwitch() {
  function flip() {
    const root = document.documentElement;
    const isDark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : window.matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    try {
      localStorage.setItem("far-theme", root.dataset.theme);
    } catch {
      // no storage: it holds until the page is left
    }
  }
  return (
    <button
      type="button"
      onClick={flip}
      aria-label="Switch between light and dark"
      className="grid size-10 place-items-center rounded-md text-soft hover:bg-raised hover:text-ink"
    >
      <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" fill="none" stroke="currentColor" strokeWidth="2">
        <circle cx="12" cy="12" r="8" />
        <path d="M12 4a8 8 0 0 1 0 16z" fill="currentColor" stroke="none" />
      </svg>
    </button>
  );
}
