// Keys of the page: , and . a frame back and on, with shift ten. Texts that are being written keep them.
() => {
  const button = { ",": "#back", ".": "#on", "<": "#far-back", ">": "#far-on" };
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (target.closest("textarea, input[type=text], input[type=number], select, [contenteditable]")) return;
    const pressed = button[event.key] && document.querySelector(button[event.key]);
    if (pressed) {
      event.preventDefault();
      pressed.click();
    }
  });
}
