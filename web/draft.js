// Hands what the server says about the prompt's text to web/prompt.js.
watch('value', () => window.glassboxDraft(props.value ?? {}));
