// Runs before the first paint: a theme that the user chose replaces that of the system.
{
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem("hedgerow-theme");
  } catch {
    // Without storage, the theme is that of the system.
  }
  const isDark = () => (chosen ?? (system.matches ? "dark" : "light")) === "dark";
  const apply = () => {
    if (chosen) root.dataset.theme = chosen;
    document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));
  };
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      chosen = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("hedgerow-theme", chosen);
      } catch {
        // It is then kept for this page only.
      }
      apply();
    });
  });
}
