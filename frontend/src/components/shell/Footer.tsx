export function Footer() {
  return (
    <footer className="border-t border-line text-sm text-soft">
      <div className="mx-auto flex max-w-6xl flex-wrap gap-x-6 gap-y-2 px-4 py-6 sm:px-6">
        <p>Far Mesh: models run by many, paid by the token.</p>
        <nav aria-label="More" className="flex gap-4">
          <a className="underline-offset-4 hover:underline" href="/operator">Operators</a>
          <a className="underline-offset-4 hover:underline" href="/health">Health</a>
        </nav>
      </div>
    </footer>
  );
}
